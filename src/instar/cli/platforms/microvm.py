"""The board ``microvm`` with KVM."""

from __future__ import annotations

import os

from instar.boards import microvm
from instar.boards.kicks import Kicks
from instar.boards.x86.boot import BLOCK_ID, adopt_images
from instar.cpu.kvm import ioapic, probe
from instar.cpu.kvm._run import address_of
from instar.cpu.kvm.cpuid import CpuModel
from instar.cpu.kvm.kvm import Kvm
from instar.cpu.kvm.make import KvmOptions
from instar.cpu.kvm.vcpus import KvmVcpus, Wishes
from instar.errors import ConfigError
from instar.machine.bus import Bus
from instar.machine.serial import MachineTimers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

    from instar.block.throttle import Timers
    from instar.boards.x86.boot import MicrovmImages
    from instar.boards.x86.start import StartState
    from instar.cli.options import Config
    from instar.cli.vm import Vm
    from instar.cpr.fds import Fds
    from instar.machine.clock import MachineClock
    from instar.machine.parts import Drainable
    from instar.machine.serial import SerialLine
    from instar.memory import AddressSpace, RamBlock
    from instar.virtio.device import VirtioDevice


DEVICE_FD: Final = "kvm"  # name of the device's descriptor


class MicrovmPlatform:
    """What ``instar.cli.platforms.Platform`` says."""

    __slots__ = ("_config", "_kicks", "_serial", "_space", "_vcpus", "_vm")

    def __init__(self, config: Config) -> None:
        self._config = config

    @property
    def ram_id(self) -> str:
        """Name of the guest's RAM block, if the user gave none."""
        return "microvm.ram"

    @property
    def boot_id(self) -> str:
        """Name of the block of boot images."""
        return BLOCK_ID

    @property
    def drainables(self) -> Sequence[Drainable]:
        """What feeds the back ends."""
        return [self._kicks]

    def place_ram(self, space: AddressSpace, ram: RamBlock) -> None:
        """Show the guest its RAM."""
        self._space = space
        microvm.add_ram(space, ram)

    def make_vcpus(
        self, vm: Vm, space: AddressSpace, serial: SerialLine
    ) -> tuple[KvmVcpus, Timers]:
        """Make the vCPUs; with timers in the host's time."""
        self._vm = vm
        self._serial = serial
        config, machine = self._config, vm.machine
        kvm = _open_kvm(vm, bare_guest=config.accel.bare_guest)
        options = KvmOptions(
            count=config.smp.cpus,
            cpu=CpuModel(",".join((config.cpu.model, *config.cpu.features))),
            split=config.accel.split_irqchip,
            pit=config.machine.pit,
            pause_shown=config.accel.pause_shown,
        )
        wishes = Wishes(
            bug=machine.on_bug, reset=machine.request_reset, shutdown=machine.request_shutdown
        )
        bus = Bus(space, None, machine.lock, machine.on_bug)
        self._vcpus = KvmVcpus(kvm, options, bus=bus, wishes=wishes)
        for region in space.ram:
            self._vcpus.memory.add(region.base, region.size, address_of(region.view))
        chip = self._vcpus.ioapic
        if chip is not None:
            space.add_mmio(ioapic.BASE, ioapic.SIZE, chip, "ioapic")
        else:
            self._vcpus.routes.apply()  # a PC's timer is at pin 2, as the board's tables say
        return self._vcpus, MachineTimers(machine)

    def make_board(
        self, clock: MachineClock, virtio: Mapping[int, VirtioDevice]
    ) -> microvm.MicrovmBoard:
        """Make the board's devices around the vCPUs."""
        vm, machine = self._vm, self._vm.machine
        ports = microvm.MicrovmPorts(
            serial=self._serial,
            clock=clock,
            timers=MachineTimers(machine),
            line=self._vcpus.line,
            processors=_Processors(self._vcpus),
            poweroff=machine.request_shutdown,
            reset=machine.request_reset,
            panicked=machine.request_panic,
            crash_loaded=machine.crash_loaded,
        )
        boot = _make_boot(self._config, vm.fds, inert=vm.inert)
        board = microvm.MicrovmBoard(self._space, ports, virtio=virtio, boot=boot)
        self._kicks = Kicks(self._vcpus.ioeventfd, vm.loop, machine.locked, machine.on_bug)
        self._kicks.add(board.transports)
        machine.at_each_run(self._kicks.look_again)
        return board


class _Processors:
    """The vCPUs as the board sees them."""

    __slots__ = ("_vcpus",)

    def __init__(self, vcpus: KvmVcpus) -> None:
        self._vcpus = vcpus

    def reset(self) -> None:
        """Bring all to the state after power-on."""
        self._vcpus.reset()

    def start(self, state: StartState) -> None:
        """Let the first one enter the kernel."""
        if state.long:
            self._vcpus.start_long_mode(state.entry, state.page_tables, state.registers, state.gdt)
        else:
            self._vcpus.start_protected(state.entry, state.registers)


def _open_kvm(vm: Vm, *, bare_guest: bool) -> Kvm:
    """Return the device, by the descriptor of the program before if it had one: a rehearsal may open nothing.

    Raises:
        ConfigError: its KVM cannot run a guest.
    """
    fd = vm.fds.find(DEVICE_FD, 0)
    if fd >= 0:
        return Kvm(fd, inert=vm.inert)
    kvm = Kvm(inert=vm.inert)
    why = probe.can_run(kvm, plain=bare_guest)
    if why:
        kvm.close()
        raise ConfigError(f"-accel kvm: {why}; nothing was started")
    if not vm.inert:
        vm.fds.save(DEVICE_FD, 0, kvm.fd, kind="device", owner="kvm")
    return kvm


def _make_boot(config: Config, fds: Fds, *, inert: bool) -> MicrovmImages:
    """Return the images of the program before, or read those of the command line."""
    inherited = adopt_images(fds, inert=inert)
    if inherited is not None:
        return inherited
    if inert and config.machine.aux_ram_share:
        raise ConfigError("the program before has no boot images that this one could share")
    from instar.boards.x86.images import BootRequest, load_images  # noqa: PLC0415 - nobody resumes into this

    seed = os.urandom(32) if config.seed is None else config.seed.to_bytes(8, "little") * 4
    request = BootRequest(
        kernel=config.kernel,
        initrd=config.initrd,
        cmdline=config.append,
        ram_size=config.memory_size,
        vcpus=config.smp.cpus,
        seed=seed,
    )
    return load_images(request, fds, share=config.machine.aux_ram_share)
