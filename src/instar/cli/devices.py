"""The devices of a configuration, each made by a function that imports what only machines with such a device need."""

from __future__ import annotations

import errno
import os

from instar.chardev import front_end

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from instar.block.policy import Action, ErrorPolicy
    from instar.block.raw import RawBlock
    from instar.block.request import Op
    from instar.cli.options import Config
    from instar.cli.options.config import (
        RngConfig,
        VhostUserConfig,
        VirtioBalloonConfig,
        VirtioBlkConfig,
        VirtioNetConfig,
        VirtioRngConfig,
        VirtioSerialConfig,
        VirtioVsockConfig,
    )
    from instar.cli.vm import Vm
    from instar.devices.virtio_blk import VirtioBlk
    from instar.devices.virtio_rng.entropy import EntropySource
    from instar.machine.machine import Machine
    from instar.memory import AddressSpace
    from instar.virtio.device import VirtioDevice


class Slots:
    """What is in the slots of a machine.

    Args:
        vm: Whose configuration it is.
        space: The guest's memory.

    Attributes:
        devices: By slot.
        used_by: The path of the device that uses each disk.
        retriers: Devices whose back ends may fail and be repaired.
    """

    __slots__ = ("devices", "retriers", "space", "used_by", "vm")

    def __init__(self, vm: Vm, space: AddressSpace) -> None:
        self.vm = vm
        self.space = space
        self.devices: dict[int, VirtioDevice] = {}
        self.used_by: dict[str, str] = {}
        self.retriers: list[VirtioBlk] = []

    def fill(self) -> None:
        """Make all devices; the disks are there.

        Raises:
            InstarError: one cannot be made.
        """
        for device in self.vm.config.devices:
            name = device.id or str(device.slot)
            self.devices[device.slot] = _MAKERS[device.driver](self, device, name)


def make_disks(vm: Vm) -> None:
    """Open the disks, or go on with those of the program before.

    Raises:
        InstarError: one cannot be opened; those before it are in ``vm``.
    """
    from instar.block.raw import BlockSpec, open_block  # noqa: PLC0415 - only machines with disks

    for b in vm.config.blocks:
        spec = BlockSpec(b.id, b.filename, read_only=b.read_only, discard=b.discard)
        disk = vm.disks[b.id] = open_block(
            spec,
            vm.fds,
            vm.machine.post,
            post_or_run=vm.machine.post_or_run,
            inline=vm.config.icount is not None,
            inert=vm.inert,
            active=not vm.inert
            and (not vm.config.incoming or vm.fds.find(f"block/{b.id}", 0) >= 0),
        )
        disk.throttle = vm.throttles.add(b.id, disk.start)
        vm.throttles.limit(b.id, b.limits, b.throttle_group)


def _make_blk(slots: Slots, config: VirtioBlkConfig, name: str) -> VirtioBlk:
    from instar.devices.virtio_blk import VirtioBlk  # noqa: PLC0415 - only machines with one

    vm = slots.vm
    disk: RawBlock = vm.disks[config.drive]
    disk.drain_ms = config.drain_ms
    device = VirtioBlk(
        disk,
        serial=config.serial,
        state_id=f"virtio-blk/{name}",
        policy=_error_policy(vm.config, config),
        on_error=_error_reporter(vm.machine, disk.id),
    )
    place = (
        f"/machine/peripheral/{config.id}"
        if config.id
        else f"/machine/peripheral-anon/device[{config.slot}]"
    )
    slots.used_by[config.drive] = f"{place}/virtio-backend"
    slots.retriers.append(device)
    return device


def _error_policy(config: Config, device: VirtioBlkConfig) -> ErrorPolicy:
    """Return what the device says, or else its drive."""
    from instar.block.policy import ErrorPolicy  # noqa: PLC0415 - only machines with disks

    (drive,) = [block for block in config.blocks if block.id == device.drive]
    return ErrorPolicy(
        read=drive.rerror if device.rerror == "auto" else device.rerror,
        write=drive.werror if device.werror == "auto" else device.werror,
    )


def _error_reporter(machine: Machine, disk: str) -> Callable[[Op, int, Action], None]:
    """Return what tells the machine and its monitors of a failed request."""

    def report(op: Op, error: int, action: Action) -> None:
        event = {
            "device": disk,
            "node-name": disk,
            "operation": "read" if op == "read" else "write",
            "action": action,
            "nospace": error == errno.ENOSPC,
            "reason": os.strerror(error),
        }
        machine.io_error(event, stop=action == "stop")

    return report


def _make_rng(slots: Slots, config: VirtioRngConfig, name: str) -> VirtioDevice:
    from instar.devices.virtio_rng import VirtioRng  # noqa: PLC0415 - only machines with one

    rngs = {rng.id: rng for rng in slots.vm.config.rngs}
    return VirtioRng(_make_entropy(slots.vm, rngs.get(config.rng)), state_id=f"virtio-rng/{name}")


def _make_entropy(vm: Vm, rng: RngConfig | None) -> EntropySource:
    from instar.devices.virtio_rng import FileEntropy, SystemEntropy, check_source  # noqa: PLC0415 - as above

    if rng is not None and rng.kind == "random":
        if vm.inert:  # even opening a FIFO is seen by who writes to it
            check_source(rng.filename)
            return SystemEntropy()
        return FileEntropy(rng.filename, vm.loop, vm.machine.when_running)
    return SystemEntropy()


def _make_console(slots: Slots, config: VirtioSerialConfig, name: str) -> VirtioDevice:
    from instar.devices.virtio_console import ConsolePort, VirtioConsole  # noqa: PLC0415 - only machines with one
    from instar.machine.serial import ConsoleLine  # noqa: PLC0415 - as above

    vm = slots.vm
    ports: dict[int, ConsolePort] = {}
    for port in config.ports:
        end = front_end(vm.chardevs[port.chardev], "serial")
        line = ConsoleLine(vm.machine, end, hold=vm.config.icount is None)
        vm.console_lines.append(line)
        ports[port.number] = ConsolePort(line, console=port.console, name=port.name)
    return VirtioConsole(ports, state_id=f"virtio-console/{name}")


def _make_net(slots: Slots, config: VirtioNetConfig, name: str) -> VirtioDevice:
    from instar.cli.network import make_card  # noqa: PLC0415 - only machines with one

    return make_card(slots.vm, config, name)


def _make_balloon(slots: Slots, config: VirtioBalloonConfig, name: str) -> VirtioDevice:
    from instar.devices.virtio_balloon import VirtioBalloon  # noqa: PLC0415 - only machines with one
    from instar.machine.balloon import RamPages  # noqa: PLC0415 - as above

    balloons = slots.vm.machine.balloon
    device = VirtioBalloon(
        RamPages(slots.space),
        balloons.changed,
        deflate_on_oom=config.deflate_on_oom,
        reporting=config.free_page_reporting,
        state_id=f"virtio-balloon/{name}",
    )
    balloons.connect(device)
    return device


def _make_vsock(slots: Slots, config: VirtioVsockConfig, name: str) -> VirtioDevice:
    from instar.devices.virtio_vsock import VirtioVsock  # noqa: PLC0415 - only machines with one
    from instar.vsock import UnixVsock  # noqa: PLC0415 - as above

    vm = slots.vm
    sockets = UnixVsock(name, config.uds_path, vm.machine, vm.fds, inert=vm.inert)
    vm.host_parts.append(sockets)
    return VirtioVsock(sockets, guest_cid=config.guest_cid, state_id=f"virtio-vsock/{name}")


def _make_vhost(slots: Slots, config: VhostUserConfig, name: str) -> VirtioDevice:
    from instar.cli.daemons import make_device  # noqa: PLC0415 - only machines with one

    return make_device(slots.vm, slots.space, config, name)


_MAKERS: Final[dict[str, Callable[[Slots, Any, str], VirtioDevice]]] = {
    "virtio-blk-device": _make_blk,
    "virtio-rng-device": _make_rng,
    "virtio-serial-device": _make_console,
    "virtio-net-device": _make_net,
    "virtio-balloon-device": _make_balloon,
    "virtio-vsock-device": _make_vsock,
    "vhost-user-blk-device": _make_vhost,
    "vhost-user-fs-device": _make_vhost,
}
