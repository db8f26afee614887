"""From a configuration to a machine: the one place where all parts meet, each in a function of its own."""

from __future__ import annotations

import errno
import os
import time

from instar import log
from instar.block import BlockSpec, open_block
from instar.block.policy import ErrorPolicy
from instar.block.throttle import Throttles
from instar.boards import virt
from instar.boards.boot import BLOCK_ID, BootRequest, adopt_images, load_images
from instar.boards.firmware import Firmware
from instar.boards.virt_fdt import virt_fdt
from instar.chardev import front_end
from instar.cli.daemons import (
    block_what_daemons_keep,
    make_vhost_devices,
    show_vhost_socket,
    start_children,
    vhost_ids,
)
from instar.cli.network import make_card, plan_netdevs
from instar.cli.options.config import (
    VhostUserBlkConfig,
    VhostUserFsConfig,
    VirtioBalloonConfig,
    VirtioBlkConfig,
    VirtioNetConfig,
    VirtioSerialConfig,
    VirtioVsockConfig,
)
from instar.cli.vm import MonitorSlot, Vm
from instar.cpu.rv64 import Core, address_of
from instar.devices.virtio_balloon import VirtioBalloon
from instar.devices.virtio_blk import VirtioBlk
from instar.devices.virtio_console import ConsolePort, VirtioConsole
from instar.devices.virtio_rng import FileEntropy, SystemEntropy, VirtioRng, check_source
from instar.devices.virtio_vsock import VirtioVsock
from instar.errors import ConfigError
from instar.machine.balloon import RamPages
from instar.machine.bus import Bus
from instar.machine.clock import MachineClock
from instar.machine.cpus import CoreBox, HartBox, ModelBox, ModelState
from instar.machine.limiter import DiskLimiter
from instar.machine.machine import Machine
from instar.machine.parts import MemoryBackend, Parts
from instar.machine.serial import ConsoleLine, MachineTimers, SerialLine
from instar.machine.vcpus import VcpuThread
from instar.machine.virtual_timers import VirtualTimers
from instar.memory import AddressSpace, BackendSpec, open_backend
from instar.migration.migration import Migration
from instar.vsock import UnixVsock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from instar.block import RawBlock
    from instar.block.policy import Action
    from instar.block.request import Op
    from instar.boards.boot import BootImages
    from instar.chardev import Chardev
    from instar.cli.options import Config
    from instar.cli.options.config import RngConfig
    from instar.cpr.fds import Fds
    from instar.devices.virtio_rng.entropy import EntropySource
    from instar.stateful import Stateful
    from instar.virtio.device import VirtioDevice

DEFAULT_RAM_ID: Final = "riscv_virt_board.ram"
NO_UUID: Final = "00000000-0000-0000-0000-000000000000"
_ISA: Final = "rv64imafdc"
_EXTENSIONS: Final = ("i", "m", "a", "f", "d", "c", "zicsr", "zifencei")


def assemble(
    vm: Vm, *, announce: Callable[[str], object], on_fatal: Callable[[str], object]
) -> None:
    """Make everything that ``vm.config`` asks for, over inherited descriptors where ``vm.fds`` has them.

    The machine is in run state prelaunch, reset, and its boot images are in RAM unless something is to come in.

    Raises:
        InstarError: something cannot be made; what was made so far is in ``vm``, to be closed.
    """
    config = vm.config
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
    parts = _make_parts(vm, console)
    vm.machine.attach(parts)
    vm.machine.autostart = not config.start_paused
    vm.migration = Migration(vm.machine, vm.fds, vm, on_fatal)
    if not config.machine.aux_ram_share:
        vm.migration.block_private_aux_ram(BLOCK_ID)
    block_what_daemons_keep(vm)
    vm.migration.blockers.ask(vm.what_cannot_cross, "cpr-exec")
    vm.migration.blockers.ask(vm.what_cannot_be_transferred, "cpr-transfer")
    vm.migration.notifiers.add(vm.on_update, "cpr-exec")
    vm.migration.notifiers.add(vm.on_transfer, "cpr-transfer")
    if not config.incoming:
        if not config.kernel:
            log.warning("no -kernel: the guest begins at the start of its RAM, where nothing is")
        vm.migration.begin_anew()
        vm.machine.locked(parts.board.reset)


def _make_chardevs(vm: Vm, announce: Callable[[str], object]) -> Chardev | None:
    """Make all character devices and places for monitors; returns what the serial port is connected to."""
    back_ends = vhost_ids(vm)
    for c in vm.config.chardevs:
        if c.id in back_ends:
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


def _make_parts(vm: Vm, console: Chardev | None) -> Parts:
    config, machine = vm.config, vm.machine
    space = AddressSpace()
    backends = _make_memory(vm, space)
    serial = SerialLine(machine, console, hold=config.icount is None)
    core = _make_core(vm, space, backends[0], serial)
    timers = VirtualTimers(core, machine.lock)
    vcpus = _make_vcpus(vm, core, timers)
    clock = _make_clock(config, core)
    vm.throttles = Throttles(clock, MachineTimers(machine) if config.icount is None else timers)
    vm.disk_limiter = DiskLimiter(machine, vm.throttles)
    disks = _make_disks(vm)
    plan_netdevs(vm)
    virtio, used_by = _make_virtio(vm, disks, space)
    virtio.update(make_vhost_devices(vm, space))
    ports = _make_ports(vm, serial, clock, vcpus, timers)
    boot = _make_boot(config, vm.fds, inert=vm.inert)
    board = virt.VirtBoard(space, core, ports, virtio=virtio, boot=boot)
    vcpu_states: list[Stateful] = [
        CoreBox(core),
        *(HartBox(core, hart) for hart in range(config.smp.cpus)),
    ]
    model = ModelState(
        harts=config.smp.cpus, sstc=config.cpu.sstc, icount_shift=_icount_shift(config)
    )
    return Parts(
        vcpus=vcpus,
        board=board,
        space=space,
        drainables=[*disks.values(), *vm.frontends, serial, *vm.console_lines],
        memory_backends=backends,
        disks=[(disk, used_by.get(name, "")) for name, disk in disks.items()],
        retriers=[device for device in virtio.values() if isinstance(device, VirtioBlk)],
        stateful=[clock, ModelBox(model), *vcpu_states, *board.stateful],
        vcpu_states=vcpu_states,
    )


def _icount_shift(config: Config) -> int:
    return -1 if config.icount is None else config.icount.shift


def _make_core(vm: Vm, space: AddressSpace, ram: MemoryBackend, serial: SerialLine) -> Core:
    config, machine = vm.config, vm.machine
    firmware = Firmware(
        space.memory, serial, poweroff=machine.request_shutdown, reset=machine.request_reset
    )
    core = Core(
        ram_addr=address_of(ram.block.view),
        ram_base=virt.RAM_BASE,
        ram_size=ram.size,
        harts=config.smp.cpus,
        bus=Bus(space, firmware, machine.lock, machine.on_bug),
        icount_shift=_icount_shift(config),
        flush_everything=config.cpu.flush_everything,
        sstc=config.cpu.sstc,
    )
    space.memory.on_write(core.dma_written, core.write_notice)
    return core


def _make_vcpus(vm: Vm, core: Core, timers: VirtualTimers) -> VcpuThread:
    icount = vm.config.icount
    return VcpuThread(
        core,
        icount_shift=_icount_shift(vm.config),
        icount_sleep=icount is not None and icount.sleep,
        timers=timers,
        on_break=vm.machine.on_break,
        on_bug=vm.machine.on_bug,
    )


def _make_ports(
    vm: Vm, serial: SerialLine, clock: MachineClock, vcpus: VcpuThread, timers: VirtualTimers
) -> virt.BoardPorts:
    config, machine = vm.config, vm.machine
    rtc_counts = config.icount is not None and config.rtc.clock == "vm"
    return virt.BoardPorts(
        serial=serial,
        clock=clock,
        timers=timers if rtc_counts else MachineTimers(machine),
        set_irq=vcpus.set_irq,
        poweroff=machine.request_shutdown,
        reset=machine.request_reset,
        watchdog_clock=clock,
        watchdog_expired=machine.request_watchdog,
        panicked=machine.request_panic,
        crash_loaded=machine.crash_loaded,
    )


def _make_memory(vm: Vm, space: AddressSpace) -> list[MemoryBackend]:
    """Make all RAM blocks; the machine's own comes first and is what the guest sees."""
    config = vm.config
    main = config.machine.memory_backend
    specs = [
        BackendSpec(b.kind, b.id, b.size, share=b.share, prealloc=b.prealloc, path=b.mem_path)
        for b in config.memory_backends
    ]
    if not main:
        specs.insert(0, BackendSpec("ram", DEFAULT_RAM_ID, config.memory_size, share=False))
    specs.sort(key=lambda spec: spec.id != (main or DEFAULT_RAM_ID))
    backends = [
        MemoryBackend(
            open_backend(spec, vm.fds, inert=vm.inert), prealloc=spec.prealloc, path=spec.path
        )
        for spec in specs
    ]
    space.add_ram(virt.RAM_BASE, backends[0].block)
    return backends


def _make_clock(config: Config, core: Core) -> MachineClock:
    base_ns = -1
    if config.rtc.base == "fixed":
        base_ns = config.rtc.start * 1_000_000_000
    elif config.rtc.base == "localtime":
        base_ns = time.time_ns() + time.localtime().tm_gmtoff * 1_000_000_000
    return MachineClock(core, rtc_follows_vm=config.rtc.clock == "vm", rtc_base_ns=base_ns)


def _make_disks(vm: Vm) -> dict[str, RawBlock]:
    disks = vm.disks
    for b in vm.config.blocks:
        spec = BlockSpec(b.id, b.filename, read_only=b.read_only, discard=b.discard)
        disk = disks[b.id] = open_block(
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
    return disks


def _make_virtio(
    vm: Vm, disks: dict[str, RawBlock], space: AddressSpace
) -> tuple[dict[int, VirtioDevice], dict[str, str]]:
    """Return the devices by slot, and the path of the device that uses each disk."""
    devices: dict[int, VirtioDevice] = {}
    used_by: dict[str, str] = {}
    rngs = {rng.id: rng for rng in vm.config.rngs}
    for device in vm.config.devices:
        if isinstance(device, VhostUserBlkConfig | VhostUserFsConfig):
            continue
        name = device.id or str(device.slot)
        if isinstance(device, VirtioBlkConfig):
            disk = disks[device.drive]
            disk.drain_ms = device.drain_ms
            devices[device.slot] = VirtioBlk(
                disk,
                serial=device.serial,
                state_id=f"virtio-blk/{name}",
                policy=_error_policy(vm.config, device),
                on_error=_error_reporter(vm.machine, disk.id),
            )
            place = (
                f"/machine/peripheral/{device.id}"
                if device.id
                else f"/machine/peripheral-anon/device[{device.slot}]"
            )
            used_by[device.drive] = f"{place}/virtio-backend"
        elif isinstance(device, VirtioNetConfig):
            devices[device.slot] = make_card(vm, device)
        elif isinstance(device, VirtioSerialConfig):
            devices[device.slot] = _make_console(vm, device, name)
        elif isinstance(device, VirtioBalloonConfig):
            balloon = VirtioBalloon(
                RamPages(space),
                vm.machine.balloon.changed,
                deflate_on_oom=device.deflate_on_oom,
                reporting=device.free_page_reporting,
                state_id=f"virtio-balloon/{name}",
            )
            vm.machine.balloon.connect(balloon)
            devices[device.slot] = balloon
        elif isinstance(device, VirtioVsockConfig):
            sockets = UnixVsock(name, device.uds_path, vm.machine, vm.fds, inert=vm.inert)
            vm.host_parts.append(sockets)
            devices[device.slot] = VirtioVsock(
                sockets, guest_cid=device.guest_cid, state_id=f"virtio-vsock/{name}"
            )
        else:
            devices[device.slot] = VirtioRng(
                _make_entropy(vm, rngs.get(device.rng)), state_id=f"virtio-rng/{name}"
            )
    return devices, used_by


def _make_console(vm: Vm, device: VirtioSerialConfig, name: str) -> VirtioConsole:
    ports: dict[int, ConsolePort] = {}
    for port in device.ports:
        end = front_end(vm.chardevs[port.chardev], "serial")
        line = ConsoleLine(vm.machine, end, hold=vm.config.icount is None)
        vm.console_lines.append(line)
        ports[port.number] = ConsolePort(line, console=port.console, name=port.name)
    return VirtioConsole(ports, state_id=f"virtio-console/{name}")


def _error_policy(config: Config, device: VirtioBlkConfig) -> ErrorPolicy:
    """Return what the device says, or else its drive."""
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


def _make_entropy(vm: Vm, rng: RngConfig | None) -> EntropySource:
    if rng is not None and rng.kind == "random":
        if vm.inert:  # even opening a FIFO is seen by who writes to it
            check_source(rng.filename)
            return SystemEntropy()
        return FileEntropy(rng.filename, vm.loop, vm.machine.when_running)
    return SystemEntropy()


def _make_boot(config: Config, fds: Fds, *, inert: bool) -> BootImages:
    """Return the images of the program before, or read those of the command line."""
    inherited = adopt_images(fds, inert=inert)
    if inherited is not None:
        return inherited
    if inert and config.machine.aux_ram_share:
        raise ConfigError("the program before has no boot images that this one could share")
    request = BootRequest(
        kernel=config.kernel,
        initrd=config.initrd,
        cmdline=config.append,
        ram_base=virt.RAM_BASE,
        ram_size=config.memory_size,
    )
    extensions = [*_EXTENSIONS, "sstc"] if config.cpu.sstc else list(_EXTENSIONS)
    multi_letter = "_".join(name for name in extensions if len(name) > 1)
    if config.seed is None and config.icount is None:
        seed = os.urandom(32)
    else:  # an instruction-count clock promises the same run each time
        seed = (config.seed or 0).to_bytes(8, "little") * 4

    def make_fdt(initrd: tuple[int, int] | None) -> bytes:
        return virt_fdt(
            ram_base=virt.RAM_BASE,
            ram_size=config.memory_size,
            harts=config.smp.cpus,
            isa=f"{_ISA}_{multi_letter}",
            isa_extensions=extensions,
            timebase=virt.TIMEBASE_HZ,
            bootargs=config.append,
            initrd=initrd,
            rng_seed=seed,
            virtio_slots=virt.VIRTIO_SLOTS,
        )

    return load_images(request, make_fdt, fds, share=config.machine.aux_ram_share)
