"""The board ``microvm`` (x86-64): reduced-hardware ACPI, a serial port, a clock, and virtio-mmio devices.

| device | address | size | interrupt |
|---|---|---|---|
| RAM | 0, and what exceeds 3 GiB from 4 GiB | | |
| CMOS clock | ports 0x70, 0x71 | | 8 |
| 16550 UART | ports 0x3F8 | 8 | 4 |
| i8042, reset only | port 0x64 | 1 | |
| debug exit | port 0x501 | 1 | |
| ACPI sleep control, sleep status, reset | ports 0x600 | 3 | |
| generic event device (power button) | 0xFEA0_0000 | 4 | 9 |
| pvpanic | 0xFEA0_1000 | 2 | |
| virtio-mmio slot n (0 to 7) | 0xFEB0_0000 + n * 0x1000 | 0x1000 | 16 + n |
| IOAPIC, local APICs (the CPU back end's) | 0xFEC0_0000, 0xFEE0_0000 | | |

Source: own; docs/decisions/0012-a-second-cpu.md.
"""

from __future__ import annotations

from instar.boards.x86 import board_map
from instar.boards.x86.layout import ram_parts
from instar.devices.acpi_ged import AcpiGed
from instar.devices.acpi_ged.device import REGION_SIZE as GED_SIZE
from instar.devices.acpi_power import AcpiPower
from instar.devices.acpi_power.device import PORTS as ACPI_PORTS
from instar.devices.cmos_rtc import CmosRtc
from instar.devices.cmos_rtc.device import PORTS as RTC_PORTS
from instar.devices.debug_exit import DebugExit
from instar.devices.i8042 import I8042
from instar.devices.pvpanic import Pvpanic
from instar.devices.pvpanic.device import REGION_SIZE as PVPANIC_SIZE
from instar.devices.uart16550 import Uart16550
from instar.devices.virtio_mmio import EmptySlot, VirtioMmio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from instar.boards.x86.boot import MicrovmImages
    from instar.boards.x86.start import StartState
    from instar.devices.handles import RtcClock, SerialChardev, Timers
    from instar.memory import AddressSpace, RamBlock
    from instar.stateful import Stateful
    from instar.virtio.device import VirtioDevice

    Drive = Callable[[bool], object]

    class Resettable(Protocol):
        """A device."""

        def reset(self) -> object:
            """Bring the state after power-on."""
            ...

    class Processors(Protocol):
        """What the board needs of the CPU back end."""

        def reset(self) -> object:
            """Bring processors and interrupt controllers to the state after power-on; all wait to be started."""
            ...

        def start(self, state: StartState, /) -> object:
            """Let the first processor begin with these registers."""
            ...


UNKNOWN: int = -1


class Wire:
    """A line to the interrupt controller; driving the level that it has does nothing.

    Args:
        drive: Takes the level.
    """

    __slots__ = ("_drive", "_level")

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        self._level = UNKNOWN  # after power-on and after a load

    def set(self, level: bool) -> None:  # noqa: FBT001 - the contract of an interrupt line
        """Drive the line."""
        if level != self._level:
            self._level = level
            self._drive(level)

    def forget(self) -> None:
        """Drive the next level in any case: the controller was reset."""
        self._level = UNKNOWN


class MicrovmPorts:
    """What the board's devices are connected to on the host's side.

    ``line`` gives, for a global system interrupt, a callable that takes its level.
    """

    __slots__ = (
        "clock", "crash_loaded", "line", "panicked", "poweroff", "processors", "reset", "serial", "timers",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - a bundle, named parts
        self,
        *,
        serial: SerialChardev,
        clock: RtcClock,
        timers: Timers,
        line: Callable[[int], Drive],
        processors: Processors,
        poweroff: Callable[[int], object],
        reset: Callable[[], object],
        panicked: Callable[[], object],
        crash_loaded: Callable[[], object],
    ) -> None:
        self.serial = serial
        self.clock = clock
        self.timers = timers
        self.line = line
        self.processors = processors
        self.poweroff = poweroff
        self.reset = reset
        self.panicked = panicked
        self.crash_loaded = crash_loaded


def add_ram(space: AddressSpace, block: RamBlock) -> None:
    """Show the machine's RAM where this board has it."""
    for base, start, size in ram_parts(block.size):
        space.add_ram(base, block, start, size)


class MicrovmBoard:
    """Devices at their addresses, and how they all are reset.

    Args:
        space: Where RAM is already; gets the devices.
        ports: The host's side.
        virtio: Devices by slot number, 0 to 7.
        boot: What reset copies into RAM and starts; None: nothing (RAM and registers come from elsewhere).

    Attributes:
        stateful: All devices with state, in the order of loading.
        transports: (guest address, transport) of each virtio device.
    """

    __slots__ = (
        "_boot",
        "_devices",
        "_ged",
        "_ports",
        "_space",
        "_wires",
        "stateful",
        "transports",
    )

    def __init__(
        self,
        space: AddressSpace,
        ports: MicrovmPorts,
        *,
        virtio: Mapping[int, VirtioDevice],
        boot: MicrovmImages | None,
    ) -> None:
        self._space = space
        self._ports = ports
        self._boot = boot
        self._wires: list[Wire] = []
        self._ged = AcpiGed(self._wire(board_map.GED_GSI))
        self.stateful: list[Stateful] = []
        self._devices: list[Resettable] = []
        self.transports: list[tuple[int, VirtioMmio]] = []
        self._add_devices()
        for slot in range(board_map.VIRTIO_SLOTS):
            self._add_slot(slot, virtio.get(slot))

    def _wire(self, gsi: int) -> Wire:
        wire = Wire(self._ports.line(gsi))
        self._wires.append(wire)
        return wire

    def _add_devices(self) -> None:
        space, ports = self._space, self._ports
        rtc = CmosRtc(self._wire(board_map.RTC_IRQ), ports.clock, ports.timers)
        uart = Uart16550(self._wire(board_map.UART_IRQ), ports.serial)
        power = AcpiPower(lambda: ports.poweroff(0), ports.reset)
        pvpanic = Pvpanic(ports.panicked, ports.crash_loaded)
        space.add_pio(board_map.RTC_PORT, RTC_PORTS, rtc, "rtc")
        space.add_pio(board_map.UART_PORT, board_map.UART_PORTS, uart, "serial")
        space.add_pio(board_map.I8042_COMMAND, 1, I8042(ports.reset), "i8042")
        space.add_pio(board_map.DEBUG_EXIT, 1, DebugExit(ports.poweroff), "debug-exit")
        space.add_pio(board_map.ACPI_PORT, ACPI_PORTS, power, "acpi")
        space.add_mmio(board_map.GED_BASE, GED_SIZE, self._ged, "acpi-ged")
        space.add_mmio(board_map.PVPANIC_BASE, PVPANIC_SIZE, pvpanic, "pvpanic-mmio")
        self.stateful += [rtc, uart, self._ged]
        self._devices += [rtc, uart, self._ged]

    def _add_slot(self, slot: int, device: VirtioDevice | None) -> None:
        space, stride = self._space, board_map.VIRTIO_STRIDE
        base = board_map.VIRTIO_BASE + slot * stride
        if device is None:
            space.add_mmio(base, stride, EmptySlot(), "virtio-mmio")
            return
        wire = self._wire(board_map.VIRTIO_GSI + slot)
        transport = VirtioMmio(device, space.memory, wire, f"virtio-mmio/{slot}")
        space.add_mmio(base, stride, transport, "virtio-mmio")
        self.stateful += [device, transport]
        self._devices.append(transport)
        self.transports.append((base, transport))

    def power_button(self) -> None:
        """Press the power button; lock held."""
        self._ged.press_power_button()

    def reset(self) -> None:
        """Bring processors, devices and boot images to the state after power-on; processors parked, lock held."""
        self._ports.processors.reset()
        for wire in self._wires:
            wire.forget()
        for device in self._devices:
            device.reset()
        if self._boot is not None:
            self._boot.copy_to(self._space.memory)
            self._ports.processors.start(self._boot.start())
