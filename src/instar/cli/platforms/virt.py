"""The board ``virt`` with the software CPU."""

from __future__ import annotations

import os

from instar.boards import virt
from instar.boards.boot import BLOCK_ID, adopt_images
from instar.boards.firmware import Firmware
from instar.cpu.rv64 import Core, address_of
from instar.cpu.rv64.state import ModelState
from instar.cpu.rv64.vcpus import Rv64Vcpus
from instar.errors import ConfigError
from instar.machine.bus import Bus
from instar.machine.serial import MachineTimers
from instar.machine.virtual_timers import VirtualTimers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

    from instar.block.throttle import Timers
    from instar.boards.boot import BootImages
    from instar.cli.options import Config
    from instar.cli.vm import Vm
    from instar.cpr.fds import Fds
    from instar.machine.clock import MachineClock
    from instar.machine.parts import Drainable
    from instar.machine.serial import SerialLine
    from instar.memory import AddressSpace, RamBlock
    from instar.virtio.device import VirtioDevice

_ISA: Final = "rv64imafdc"
_EXTENSIONS: Final = ("i", "m", "a", "f", "d", "c", "zicsr", "zifencei")


class VirtPlatform:
    """What ``instar.cli.platforms.Platform`` says."""

    __slots__ = ("_config", "_ram", "_serial", "_space", "_timers", "_vcpus", "_vm")

    def __init__(self, config: Config) -> None:
        self._config = config

    @property
    def ram_id(self) -> str:
        """Name of the guest's RAM block, if the user gave none."""
        return "riscv_virt_board.ram"

    @property
    def boot_id(self) -> str:
        """Name of the block of boot images."""
        return BLOCK_ID

    @property
    def drainables(self) -> Sequence[Drainable]:
        """Nothing: devices are notified by the harts themselves."""
        return ()

    def place_ram(self, space: AddressSpace, ram: RamBlock) -> None:
        """Show the guest its RAM."""
        self._space = space
        self._ram = ram
        space.add_ram(virt.RAM_BASE, ram)

    def make_vcpus(
        self, vm: Vm, space: AddressSpace, serial: SerialLine
    ) -> tuple[Rv64Vcpus, Timers]:
        """Make the harts; with timers that count instructions if their clock does."""
        self._vm = vm
        self._serial = serial
        config, machine, icount = self._config, vm.machine, self._config.icount
        firmware = Firmware(
            space.memory, serial, poweroff=machine.request_shutdown, reset=machine.request_reset
        )
        shift = -1 if icount is None else icount.shift
        core = Core(
            ram_addr=address_of(self._ram.view),
            ram_base=virt.RAM_BASE,
            ram_size=self._ram.size,
            harts=config.smp.cpus,
            bus=Bus(space, firmware, machine.lock, machine.on_bug),
            icount_shift=shift,
            flush_everything=config.cpu.flush_everything,
            sstc=config.cpu.sstc,
        )
        space.memory.on_write(core.dma_written, core.write_notice)
        self._timers = VirtualTimers(core, machine.lock)
        self._vcpus = Rv64Vcpus(
            core,
            model=ModelState(harts=config.smp.cpus, sstc=config.cpu.sstc, icount_shift=shift),
            icount_sleep=icount is not None and icount.sleep,
            timers=self._timers,
            on_break=machine.on_break,
            on_bug=machine.on_bug,
        )
        return self._vcpus, MachineTimers(machine) if icount is None else self._timers

    def make_board(
        self, clock: MachineClock, virtio: Mapping[int, VirtioDevice]
    ) -> virt.VirtBoard:
        """Make the board's devices around the harts."""
        boot = _make_boot(self._config, self._vm.fds, inert=self._vm.inert)
        return virt.VirtBoard(
            self._space, self._vcpus.core, self._ports(clock), virtio=virtio, boot=boot
        )

    def _ports(self, clock: MachineClock) -> virt.BoardPorts:
        config, machine = self._config, self._vm.machine
        rtc_counts = config.icount is not None and config.rtc.clock == "vm"
        return virt.BoardPorts(
            serial=self._serial,
            clock=clock,
            timers=self._timers if rtc_counts else MachineTimers(machine),
            set_irq=self._vcpus.set_irq,
            poweroff=machine.request_shutdown,
            reset=machine.request_reset,
            watchdog_clock=clock,
            watchdog_expired=machine.request_watchdog,
            panicked=machine.request_panic,
            crash_loaded=machine.crash_loaded,
        )


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
