"""From a configuration to a machine: the one place where all parts meet, each in a function of its own."""

from __future__ import annotations

import time

from instar import log
from instar.block.throttle import Throttles
from instar.chardev import front_end
from instar.cli.devices import Slots, make_disks
from instar.cli.network import plan_netdevs
from instar.cli.options.config import VhostUserBlkConfig, VhostUserFsConfig
from instar.cli.platforms import platform_of
from instar.cli.vm import MonitorSlot, Vm
from instar.machine.clock import MachineClock
from instar.machine.limiter import DiskLimiter
from instar.machine.machine import Machine
from instar.machine.parts import MemoryBackend, Parts
from instar.machine.serial import SerialLine
from instar.memory import AddressSpace, BackendSpec, open_backend
from instar.migration.migration import Migration
from instar.migration.parameters import MODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from instar.chardev import Chardev
    from instar.cli.options import Config
    from instar.cli.platforms import Platform
    from instar.machine.parts import Vcpus

NO_UUID: Final = "00000000-0000-0000-0000-000000000000"


def assemble(
    vm: Vm, *, announce: Callable[[str], object], on_fatal: Callable[[str], object]
) -> None:
    """Make everything that ``vm.config`` asks for, over inherited descriptors where ``vm.fds`` has them.

    The machine is in run state prelaunch, reset, and its boot images are in RAM unless something is to come in.

    Raises:
        InstarError: something cannot be made; what was made so far is in ``vm``, to be closed.
    """
    config = vm.config
    if config.children or vm.had_children:
        from instar.cli.children import start_children  # noqa: PLC0415 - only machines that have some

        start_children(vm)
    console = _make_chardevs(vm, announce)
    vm.machine = Machine(
        name=config.name,
        uuid=config.uuid or NO_UUID,
        loop=vm.loop,
        on_reset="shutdown" if config.no_reboot else "reset",
        on_shutdown="pause" if config.no_shutdown else "poweroff",
        on_panic=config.actions.panic,
        on_watchdog=config.actions.watchdog,
    )
    platform = platform_of(config)
    parts = _make_parts(vm, console, platform)
    vm.machine.attach(parts)
    vm.machine.autostart = not config.start_paused
    vm.migration = Migration(vm.machine, vm.fds, vm, on_fatal)
    if not config.machine.aux_ram_share:
        vm.migration.block_private_aux_ram(platform.boot_id)
    _block_what_daemons_keep(vm)
    vm.migration.blockers.ask(vm.what_cannot_cross, "cpr-exec")
    vm.migration.blockers.ask(vm.what_cannot_be_transferred, "cpr-transfer")
    vm.migration.notifiers.add(vm.on_update, "cpr-exec")
    vm.migration.notifiers.add(vm.on_transfer, "cpr-transfer")
    if not config.incoming:
        left_out = config.accel.wanted[: config.accel.wanted.index(config.accel.kind)]
        for name in left_out:
            log.warning(
                f"-accel {name} does not run -machine {config.machine.type}: {config.accel.kind} does it"
            )
        if not config.kernel:
            log.warning("no -kernel: the guest begins at the start of its RAM, where nothing is")
        vm.migration.begin_anew()
        vm.machine.locked(parts.board.reset)


def _block_what_daemons_keep(vm: Vm) -> None:
    """Refuse migrations that a file system daemon would not survive: open files are known to it alone."""
    for device in vm.config.devices:
        if isinstance(device, VhostUserFsConfig):
            vm.migration.blockers.add(
                f"{device.driver} {device.tag}: the files that the guest has open are known to the program that "
                "serves them alone, and only mode cpr-exec keeps it",
                *(mode for mode in MODES if mode != "cpr-exec"),
            )


def _make_chardevs(vm: Vm, announce: Callable[[str], object]) -> Chardev | None:
    """Make all character devices and places for monitors; returns what the serial port is connected to."""
    back_ends = {
        device.chardev
        for device in vm.config.devices
        if isinstance(device, VhostUserBlkConfig | VhostUserFsConfig)
    }
    for c in vm.config.chardevs:
        if c.id in back_ends:  # a connection to a program that serves a device, not a byte stream
            from instar.cli.daemons import show_vhost_socket  # noqa: PLC0415 - only machines with one

            show_vhost_socket(vm, c)
        else:
            vm.make_chardev(c, announce)
    # First, because what is typed on a shared terminal goes to the first until Ctrl-A c.
    name = vm.config.serial
    console = front_end(vm.chardevs[name], "serial") if name else None
    for monitor in vm.config.monitors:
        vm.monitor_slots.append(
            MonitorSlot(monitor, front_end(vm.chardevs[monitor.chardev], "monitor"))
        )
    return console


def _make_parts(vm: Vm, console: Chardev | None, platform: Platform) -> Parts:
    config, machine = vm.config, vm.machine
    space = AddressSpace()
    backends = _make_memory(vm, platform.ram_id)
    platform.place_ram(space, backends[0].block)
    serial = SerialLine(machine, console, hold=config.icount is None)
    vcpus, timers = platform.make_vcpus(vm, space, serial)
    clock = _make_clock(config, vcpus)
    vm.throttles = Throttles(clock, timers)
    vm.disk_limiter = DiskLimiter(machine, vm.throttles)
    if config.blocks:
        make_disks(vm)
    plan_netdevs(vm)
    slots = Slots(vm, space)
    slots.fill()
    board = platform.make_board(clock, slots.devices)
    return Parts(
        vcpus=vcpus,
        board=board,
        space=space,
        drainables=[
            *platform.drainables,
            *vm.disks.values(),
            *vm.frontends,
            serial,
            *vm.console_lines,
        ],
        memory_backends=backends,
        disks=[(disk, slots.used_by.get(name, "")) for name, disk in vm.disks.items()],
        retriers=slots.retriers,
        stateful=[clock, *vcpus.states, *board.stateful],
    )


def _make_memory(vm: Vm, ram_id: str) -> list[MemoryBackend]:
    """Make all RAM blocks; the machine's own (``ram_id`` if nothing else is asked for) comes first: the guest's."""
    config = vm.config
    main = config.machine.memory_backend
    specs = [
        BackendSpec(
            b.kind, b.id, b.size, share=b.share, prealloc=b.prealloc, path=b.mem_path, huge=b.huge
        )
        for b in config.memory_backends
    ]
    if not main:
        specs.insert(0, BackendSpec("ram", ram_id, config.memory_size, share=False))
    specs.sort(key=lambda spec: spec.id != (main or ram_id))
    return [
        MemoryBackend(
            open_backend(spec, vm.fds, inert=vm.inert), prealloc=spec.prealloc, path=spec.path
        )
        for spec in specs
    ]


def _make_clock(config: Config, vcpus: Vcpus) -> MachineClock:
    base_ns = -1
    if config.rtc.base == "fixed":
        base_ns = config.rtc.start * 1_000_000_000
    elif config.rtc.base == "localtime":
        base_ns = time.time_ns() + time.localtime().tm_gmtoff * 1_000_000_000
    return MachineClock(vcpus, rtc_follows_vm=config.rtc.clock == "vm", rtc_base_ns=base_ns)
