"""The registers with which a processor enters a kernel, as the boot protocols want them.

Source: Linux Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"; Xen docs/misc/pvh, "x86/HVM direct boot ABI";
Intel SDM volume 3A, 3.4.5 (segment descriptors).
"""

from __future__ import annotations

import struct

from instar.boards.x86.layout import GDT, PAGE_TABLES, STACK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LINUX64, PVH = 1, 2  # kinds of entry, as the block of boot images has them

CODE_SELECTOR, DATA_SELECTOR, TSS_SELECTOR = 0x10, 0x18, 0x20
_PE, _ET, _PG = 1, 1 << 4, 1 << 31
_PAE: Final = 1 << 5
_LME, _LMA = 1 << 8, 1 << 10
_RFLAGS: Final = 2  # the bit that is always set: interrupts and traps are off
_CODE_TYPE, _DATA_TYPE, _TSS_TYPE = 0xB, 0x3, 0xB
_FLAT: Final = 0xFFFF_FFFF
_TSS_LIMIT: Final = 0x67
_GDT_ENTRIES: Final = 6  # two nulls, code, data, and a TSS that takes two in long mode
_PRESENT, _WRITABLE, _LARGE = 1, 2, 1 << 7
_TABLE: Final = 4096
_GIB: Final = 1 << 30
_LARGE_PAGE: Final = 2 << 20
MAPPED_GIB: Final = 4
PAGE_TABLES_SIZE: Final = (2 + MAPPED_GIB) * _TABLE


class Segment:
    """A segment register: what is visible of it and what the processor keeps of its descriptor.

    Attributes:
        limit: In bytes, expanded.
        kind: The type field, 4 bits.
        system: A system segment such as a TSS, not code or data.
        long: 64-bit code.
        big: 32-bit operands (D/B); limits count pages then.
    """

    __slots__ = ("base", "big", "kind", "limit", "long", "selector", "system")

    def __init__(  # noqa: PLR0913 - the fields of a descriptor
        self,
        selector: int,
        kind: int,
        *,
        limit: int = _FLAT,
        system: bool = False,
        long: bool = False,
        big: bool = False,
        base: int = 0,
    ) -> None:
        self.selector = selector
        self.base = base
        self.limit = limit
        self.kind = kind
        self.system = system
        self.long = long
        self.big = big

    def descriptor(self) -> int:
        """Return the descriptor that this was loaded from, 64 bits."""
        pages = self.limit > 0xF_FFFF
        limit = self.limit >> 12 if pages else self.limit
        access = 0x80 | (0 if self.system else 0x10) | self.kind  # present, privilege level 0
        flags = 8 * pages | 4 * self.big | 2 * self.long
        low = (self.base & 0xFFFF) << 16 | limit & 0xFFFF
        high = (
            (self.base >> 24 & 0xFF) << 24
            | flags << 20
            | (limit >> 16 & 0xF) << 16
            | access << 8
            | (self.base >> 16 & 0xFF)
        )
        return high << 32 | low


class StartState:
    """Registers of the first processor at its first instruction; what is not here is 0.

    Attributes:
        code, data, task: Segments: CS; DS, ES, SS, FS and GS; TR.
        gdt, gdt_limit: Where the table of their descriptors is.
    """

    __slots__ = (
        "code", "cr0", "cr3", "cr4", "data", "efer", "gdt", "gdt_limit", "rbx", "rflags", "rip", "rsi", "rsp",
        "task",
    )  # fmt: skip

    def __init__(self, kind: int, entry: int, argument: int) -> None:
        long = kind == LINUX64
        self.rip = entry
        self.rsp = STACK
        self.rsi = argument if long else 0
        self.rbx = 0 if long else argument
        self.rflags = _RFLAGS
        self.cr0 = _PE | _ET | (_PG if long else 0)
        self.cr3 = PAGE_TABLES if long else 0
        self.cr4 = _PAE if long else 0
        self.efer = _LME | _LMA if long else 0
        self.code = Segment(CODE_SELECTOR, _CODE_TYPE, long=long, big=not long)
        self.data = Segment(DATA_SELECTOR, _DATA_TYPE, big=True)
        self.task = Segment(TSS_SELECTOR, _TSS_TYPE, limit=_TSS_LIMIT, system=True)
        self.gdt = GDT
        self.gdt_limit = 8 * _GDT_ENTRIES - 1


def descriptor_table(kind: int) -> bytes:
    """Return the table that is at ``layout.GDT``."""
    start = StartState(kind, 0, 0)
    segments = (start.code, start.data, start.task)
    return struct.pack("<6Q", 0, 0, *(segment.descriptor() for segment in segments), 0)


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
