"""From a configuration to a machine: the one place where all parts meet, each in a function of its own."""

from __future__ import annotations

import os
import time

from instar import log
from instar.block.throttle import Throttles
from instar.boards import virt
from instar.boards.boot import BLOCK_ID, adopt_images
from instar.boards.firmware import Firmware
from instar.chardev import front_end
from instar.cli.devices import Slots, make_disks
from instar.cli.network import plan_netdevs
from instar.cli.options.config import VhostUserBlkConfig, VhostUserFsConfig
from instar.cli.vm import MonitorSlot, Vm
from instar.cpu.rv64 import Core, address_of
from instar.errors import ConfigError
from instar.machine.bus import Bus
from instar.machine.clock import MachineClock
from instar.machine.cpus import CoreBox, HartBox, ModelBox, ModelState
from instar.machine.limiter import DiskLimiter
from instar.machine.machine import Machine
from instar.machine.parts import MemoryBackend, Parts
from instar.machine.serial import MachineTimers, SerialLine
from instar.machine.vcpus import VcpuThread
from instar.machine.virtual_timers import VirtualTimers
from instar.memory import AddressSpace, BackendSpec, open_backend
from instar.migration.migration import Migration
from instar.migration.parameters import MODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from instar.boards.boot import BootImages
    from instar.chardev import Chardev
    from instar.cli.options import Config
    from instar.cpr.fds import Fds
    from instar.stateful import Stateful

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
    parts = _make_parts(vm, console)
    vm.machine.attach(parts)
    vm.machine.autostart = not config.start_paused
    vm.migration = Migration(vm.machine, vm.fds, vm, on_fatal)
    if not config.machine.aux_ram_share:
        vm.migration.block_private_aux_ram(BLOCK_ID)
    _block_what_daemons_keep(vm)
    vm.migration.blockers.ask(vm.what_cannot_cross, "cpr-exec")
    vm.migration.blockers.ask(vm.what_cannot_be_transferred, "cpr-transfer")
    vm.migration.notifiers.add(vm.on_update, "cpr-exec")
    vm.migration.notifiers.add(vm.on_transfer, "cpr-transfer")
    if not config.incoming:
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
    if config.blocks:
        make_disks(vm)
    plan_netdevs(vm)
    slots = Slots(vm, space)
    slots.fill()
    ports = _make_ports(vm, serial, clock, vcpus, timers)
    boot = _make_boot(config, vm.fds, inert=vm.inert)
    board = virt.VirtBoard(space, core, ports, virtio=slots.devices, boot=boot)
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
        drainables=[*vm.disks.values(), *vm.frontends, serial, *vm.console_lines],
        memory_backends=backends,
        disks=[(disk, slots.used_by.get(name, "")) for name, disk in vm.disks.items()],
        retriers=slots.retriers,
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
        BackendSpec(
            b.kind, b.id, b.size, share=b.share, prealloc=b.prealloc, path=b.mem_path, huge=b.huge
        )
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


def _make_boot(config: Config, fds: Fds, *, inert: bool) -> BootImages:
    """Return the images of the program before, or read those of the command line."""
    inherited = adopt_images(fds, inert=inert)
    if inherited is not None:
        return inherited
    if inert and config.machine.aux_ram_share:
        raise ConfigError("the program before has no boot images that this one could share")
    from instar.boards.images import BootRequest, load_images  # noqa: PLC0415 - nobody resumes into this
    from instar.boards.virt_fdt import virt_fdt  # noqa: PLC0415 - as above

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
