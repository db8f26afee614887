"""Where the devices of the board ``microvm`` are, for the board and for the tables that describe it.

Source: own; docs/decisions/0012-a-second-cpu.md. Where QEMU's microvm has a device of the kind, its address is kept.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

VIRTIO_BASE: Final = 0xFEB0_0000
VIRTIO_STRIDE: Final = 0x1000
VIRTIO_SLOTS: Final = 8
VIRTIO_GSI: Final = 16
IOAPIC_BASE: Final = 0xFEC0_0000
IOAPIC_PINS: Final = 24
LAPIC_BASE: Final = 0xFEE0_0000
GED_BASE: Final = 0xFEA0_0000
GED_GSI: Final = 9
PVPANIC_BASE: Final = 0xFEA0_1000
TIMER_IRQ: Final = 0
TIMER_GSI: Final = 2  # where a PC's timer is at its IOAPIC
UART_PORT: Final = 0x3F8
UART_PORTS: Final = 8
UART_IRQ: Final = 4
RTC_PORT: Final = 0x70
RTC_IRQ: Final = 8
I8042_COMMAND: Final = 0x64
ACPI_PORT: Final = 0x600
SLEEP_CONTROL, SLEEP_STATUS, RESET = ACPI_PORT, ACPI_PORT + 1, ACPI_PORT + 2
RESET_VALUE: Final = 1
DEBUG_EXIT: Final = 0x501
SOFT_OFF: Final = 5  # SLP_TYP of _S5
