"""The board ``virt``: what QEMU's riscv64 board of that name shows a guest, with virtio-mmio devices.

| device | address | size | interrupt |
|---|---|---|---|
| syscon (sifive,test) | 0x0010_0000 | 0x1000 | |
| goldfish RTC | 0x0010_1000 | 0x1000 | 11 |
| pvpanic | 0x0010_2000 | 0x2 | |
| watchdog (sun6i) | 0x0010_3000 | 0x20 | |
| PLIC | 0x0C00_0000 | 0x60_0000 | |
| 16550 UART | 0x1000_0000 | 0x100 | 10 |
| virtio-mmio slot n (0 to 7) | 0x1000_1000 + n * 0x1000 | 0x1000 | 1 + n |
| RAM | 0x8000_0000 | | |

Source: own; addresses and interrupts are QEMU's, so that its guests run unchanged.
"""

from __future__ import annotations

from instar.devices.goldfish_rtc import GoldfishRtc
from instar.devices.plic import Plic
from instar.devices.pvpanic import Pvpanic
from instar.devices.pvpanic.device import REGION_SIZE as PVPANIC_SIZE
from instar.devices.syscon import Syscon
from instar.devices.uart16550 import Uart16550
from instar.devices.virtio_mmio import EmptySlot, VirtioMmio
from instar.devices.watchdog import Watchdog
from instar.devices.watchdog.device import REGION_SIZE as WATCHDOG_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final, Protocol

    from instar.boards.boot import BootImages
    from instar.cpu.rv64 import Core
    from instar.devices.handles import RtcClock, SerialChardev, Timers
    from instar.devices.watchdog.device import VirtualClock
    from instar.memory import AddressSpace
    from instar.stateful import Stateful
    from instar.virtio.device import VirtioDevice

    class Resettable(Protocol):
        """A device."""

        def reset(self) -> object:
            """Bring the state after power-on."""
            ...


SYSCON_BASE: Final = 0x0010_0000
RTC_BASE: Final = 0x0010_1000
RTC_IRQ: Final = 11
PVPANIC_BASE: Final = 0x0010_2000
WATCHDOG_BASE: Final = 0x0010_3000
PLIC_BASE: Final = 0x0C00_0000
PLIC_SIZE: Final = 0x60_0000
UART_BASE: Final = 0x1000_0000
UART_IRQ: Final = 10
VIRTIO_BASE: Final = 0x1000_1000
VIRTIO_STRIDE: Final = 0x1000
VIRTIO_IRQ: Final = 1
VIRTIO_SLOTS: Final = 8
RAM_BASE: Final = 0x8000_0000
TIMEBASE_HZ: Final = 10_000_000

_MEIP: Final = 11  # bit of a hart's external interrupt in mip, by privilege mode
_SEIP: Final = 9


class BoardPorts:
    """What the board's devices are connected to on the host's side."""

    __slots__ = (
        "clock", "crash_loaded", "panicked", "poweroff", "reset", "serial", "set_irq", "timers",
        "watchdog_clock", "watchdog_expired",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - a bundle, named parts
        self,
        *,
        serial: SerialChardev,
        clock: RtcClock,
        timers: Timers,
        set_irq: Callable[[int, int, bool], object],
        poweroff: Callable[[int], object],
        reset: Callable[[], object],
        watchdog_clock: VirtualClock,
        watchdog_expired: Callable[[], object],
        panicked: Callable[[], object],
        crash_loaded: Callable[[], object],
    ) -> None:
        self.serial = serial
        self.clock = clock
        self.timers = timers
        self.set_irq = set_irq
        self.poweroff = poweroff
        self.watchdog_clock = watchdog_clock
        self.watchdog_expired = watchdog_expired
        self.panicked = panicked
        self.crash_loaded = crash_loaded
        self.reset = reset


class VirtBoard:
    """Devices at their addresses, and how they all are reset.

    Args:
        space: Where RAM is already; gets the devices.
        core: The harts.
        ports: The host's side.
        virtio: Devices by slot number, 0 to 7.
        boot: What reset copies into RAM; None: nothing (RAM comes from elsewhere).
    """

    __slots__ = ("_boot", "_core", "_devices", "_space", "stateful")

    def __init__(
        self,
        space: AddressSpace,
        core: Core,
        ports: BoardPorts,
        *,
        virtio: Mapping[int, VirtioDevice],
        boot: BootImages | None,
    ) -> None:
        self._space = space
        self._core = core
        self._boot = boot

        def set_context(context: int, level: bool) -> None:  # noqa: FBT001 - the shape of a wire
            ports.set_irq(context >> 1, _SEIP if context & 1 else _MEIP, level)

        plic = Plic(2 * core.harts, set_context)
        syscon = Syscon(lambda: ports.poweroff(0), ports.poweroff, ports.reset)
        rtc = GoldfishRtc(plic.line(RTC_IRQ), ports.clock, ports.timers)
        uart = Uart16550(plic.line(UART_IRQ), ports.serial)
        space.add_mmio(SYSCON_BASE, 0x1000, syscon, "riscv.sifive.test")
        space.add_mmio(RTC_BASE, 0x1000, rtc, "goldfish_rtc")
        space.add_mmio(PLIC_BASE, PLIC_SIZE, plic, "riscv.sifive.plic")
        space.add_mmio(UART_BASE, 0x100, uart, "serial")
        pvpanic = Pvpanic(ports.panicked, ports.crash_loaded)
        watchdog = Watchdog(ports.watchdog_clock, ports.timers, ports.watchdog_expired)
        space.add_mmio(PVPANIC_BASE, PVPANIC_SIZE, pvpanic, "pvpanic-mmio")
        space.add_mmio(WATCHDOG_BASE, WATCHDOG_SIZE, watchdog, "watchdog")
        self.stateful: list[Stateful] = [plic, rtc, uart, watchdog]
        self._devices: list[Resettable] = [plic, rtc, uart, watchdog]
        for slot in range(VIRTIO_SLOTS):
            base = VIRTIO_BASE + slot * VIRTIO_STRIDE
            device = virtio.get(slot)
            if device is None:
                space.add_mmio(base, VIRTIO_STRIDE, EmptySlot(), "virtio-mmio")
                continue
            transport = VirtioMmio(
                device, space.memory, plic.line(VIRTIO_IRQ + slot), f"virtio-mmio/{slot}"
            )
            space.add_mmio(base, VIRTIO_STRIDE, transport, "virtio-mmio")
            self.stateful += [device, transport]
            self._devices.append(transport)

    def power_button(self) -> None:
        """Do nothing: this board has none that a guest could see."""

    def reset(self) -> None:
        """Bring devices, boot images and harts to the state after power-on; harts parked, lock held."""
        for device in self._devices:
            device.reset()
        self._core.reset()
        entry, fdt = RAM_BASE, 0
        if self._boot is not None:
            self._boot.copy_to(self._space.memory)
            entry, fdt = self._boot.entry, self._boot.fdt
        self._core.start_hart(0, entry, 0, fdt)
