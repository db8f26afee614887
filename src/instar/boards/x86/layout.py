"""Where things are in the memory of an x86-64 guest when it starts, and which memory it has.

| address | what |
|---|---|
| 0x500 | global descriptor table |
| 0x6000 | PVH start information, its modules and memory map |
| 0x7000 | boot parameters ("zero page") |
| 0x9000 | page tables: the first 4 GiB at their own addresses |
| 0x2_0000 | command line |
| 0x3_0000 | seed for the kernel's random numbers |
| 0x9_FC00 | MP table |
| 0xE_0000 | ACPI tables, root pointer first |
| 0x10_0000 | lowest address of a kernel |

Source: own; what a kernel leaves alone is in Linux Documentation/arch/x86/boot.rst, "Memory layout".
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

GDT: Final = 0x500
START_INFO: Final = 0x6000
BOOT_PARAMS: Final = 0x7000
STACK: Final = 0x8FF0
PAGE_TABLES: Final = 0x9000
CMDLINE: Final = 0x2_0000
CMDLINE_LIMIT: Final = 0xFFFF  # bytes without the NUL; a kernel's own limit is lower
SETUP_DATA: Final = 0x3_0000
MP_TABLE: Final = 0x9_FC00
MP_TABLE_SIZE: Final = 0x400
ACPI_TABLES: Final = 0xE_0000
ACPI_SIZE: Final = 0x2_0000
KERNEL_LOW: Final = 0x10_0000

LOW_RAM_MAX: Final = 0xC000_0000  # bytes below the gap for devices
HIGH_RAM: Final = 1 << 32

E820_RAM, E820_RESERVED = 1, 2


def ram_parts(size: int) -> list[tuple[int, int, int]]:
    """Return where RAM of ``size`` bytes is seen: (guest address, first byte of the block, bytes) of each part."""
    low = min(size, LOW_RAM_MAX)
    parts = [(0, 0, low)]
    if size > low:
        parts.append((HIGH_RAM, low, size - low))
    return parts


def memory_map(ram_size: int) -> list[tuple[int, int, int]]:
    """Return what the guest is told of its memory: (address, bytes, type), by address."""
    low, *high = ram_parts(ram_size)
    found = [
        (0, MP_TABLE, E820_RAM),
        (MP_TABLE, MP_TABLE_SIZE, E820_RESERVED),
        (ACPI_TABLES, ACPI_SIZE, E820_RESERVED),
        (KERNEL_LOW, low[2] - KERNEL_LOW, E820_RAM),
    ]
    return found + [(base, length, E820_RAM) for base, _, length in high]
