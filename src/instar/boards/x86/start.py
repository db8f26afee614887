"""How a processor enters a kernel, as the boot protocols want it, and the tables that it finds in memory.

Source: Linux Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"; Xen docs/misc/pvh, "x86/HVM direct boot ABI";
Intel SDM volume 3A, 3.4.5 (segment descriptors), 4.5 (paging).
"""

from __future__ import annotations

import struct

from instar.boards.x86.layout import GDT, PAGE_TABLES, STACK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LINUX64, PVH = 1, 2  # kinds of entry, as the block of boot images has them

# Flat segments at 0x10 (code) and 0x18 (data), a task segment at 0x20: what Linux wants in its 64-bit entry.
_CODE_64, _CODE_32 = 0x00AF_9B00_0000_FFFF, 0x00CF_9B00_0000_FFFF
_DATA: Final = 0x00CF_9300_0000_FFFF
_TASK: Final = 0x0000_8B00_0000_0067
_GDT_ENTRIES: Final = 6  # two nulls, code, data, and a task segment that takes two in long mode
_PRESENT, _WRITABLE, _LARGE = 1, 2, 1 << 7
_TABLE: Final = 4096
_GIB: Final = 1 << 30
_LARGE_PAGE: Final = 2 << 20
MAPPED_GIB: Final = 4
PAGE_TABLES_SIZE: Final = (2 + MAPPED_GIB) * _TABLE


class StartState:
    """How the first processor begins.

    Attributes:
        long: In 64-bit mode with paging; else in 32-bit mode without, all segments flat. Interrupts are off.
        entry: Address of the first instruction.
        registers: General registers by name; the others are 0.
        page_tables: Of 64-bit mode, guest address.
        gdt: Address and limit of the table with the segments of 64-bit mode.
    """

    __slots__ = ("entry", "gdt", "long", "page_tables", "registers")

    def __init__(self, kind: int, entry: int, argument: int) -> None:
        self.long = kind == LINUX64
        self.entry = entry
        self.registers = {"rsp": STACK, "rsi" if self.long else "rbx": argument}
        self.page_tables = PAGE_TABLES
        self.gdt = (GDT, 8 * _GDT_ENTRIES - 1)


def descriptor_table(kind: int) -> bytes:
    """Return the table that is at ``layout.GDT``."""
    code = _CODE_64 if kind == LINUX64 else _CODE_32
    return struct.pack(f"<{_GDT_ENTRIES}Q", 0, 0, code, _DATA, _TASK, 0)


def page_tables() -> bytes:
    """Return the tables that are at ``layout.PAGE_TABLES``: the first 4 GiB where they are, in pages of 2 MiB."""
    flags = _PRESENT | _WRITABLE
    first = PAGE_TABLES + _TABLE
    out = [struct.pack("<Q", first | flags).ljust(_TABLE, b"\0")]
    directories = [first + _TABLE * (1 + n) | flags for n in range(MAPPED_GIB)]
    out.append(struct.pack(f"<{MAPPED_GIB}Q", *directories).ljust(_TABLE, b"\0"))
    pages = range(0, MAPPED_GIB * _GIB, _LARGE_PAGE)
    out.append(struct.pack(f"<{len(pages)}Q", *(page | flags | _LARGE for page in pages)))
    return b"".join(out)
