"""Registers, descriptors and page tables of a first processor."""

from __future__ import annotations

import struct

from instar.boards.x86 import layout
from instar.boards.x86.start import (
    LINUX64,
    PAGE_TABLES_SIZE,
    PVH,
    StartState,
    descriptor_table,
    page_tables,
)


def walk(tables: bytes, va: int) -> int:
    """Translate as a processor in long mode does."""

    def entry(table: int, index: int) -> int:
        return struct.unpack_from("<Q", tables, table - layout.PAGE_TABLES + 8 * index)[0]

    directory_pointers = entry(layout.PAGE_TABLES, va >> 39 & 511)
    directory = entry(directory_pointers & ~0xFFF, va >> 30 & 511)
    page = entry(directory & ~0xFFF, va >> 21 & 511)
    assert directory_pointers & directory & page & 3 == 3
    assert page & 0x80
    return (page & ~0x1FFFFF) + (va & 0x1FFFFF)


def test_page_tables_show_the_first_4_gib_where_they_are():
    tables = page_tables()
    assert len(tables) == PAGE_TABLES_SIZE
    places = [0, 0x1000200, 0x7FFF_FFFF, 0xC000_0000, 0xFEE0_0020, 0xFFFF_FFFF]
    assert [walk(tables, va) for va in places] == places


def test_long_mode_start_has_parameters_tables_and_segments():
    start = StartState(LINUX64, 0x1000200, layout.BOOT_PARAMS)
    assert (start.long, start.entry) == (True, 0x1000200)
    assert start.registers == {"rsp": layout.STACK, "rsi": layout.BOOT_PARAMS}
    assert (start.page_tables, start.gdt) == (
        layout.PAGE_TABLES,
        (layout.GDT, len(descriptor_table(LINUX64)) - 1),
    )


def test_pvh_start_has_its_information_in_rbx():
    start = StartState(PVH, 0x1000000, layout.START_INFO)
    assert (start.long, start.entry) == (False, 0x1000000)
    assert start.registers == {"rsp": layout.STACK, "rbx": layout.START_INFO}


def decode(entry: int) -> dict[str, int]:
    """Take a descriptor apart as a processor does."""
    return {
        "base": entry >> 16 & 0xFFFFFF | entry >> 56 << 24,
        "limit": entry & 0xFFFF | (entry >> 48 & 0xF) << 16,
        "type": entry >> 40 & 0xF,
        "code or data": entry >> 44 & 1,
        "present": entry >> 47 & 1,
        "long": entry >> 53 & 1,
        "big": entry >> 54 & 1,
        "pages": entry >> 55 & 1,
    }


def test_descriptors_are_flat():
    long = [decode(entry) for entry in struct.unpack("<6Q", descriptor_table(LINUX64))]
    flat = [decode(entry) for entry in struct.unpack("<6Q", descriptor_table(PVH))]
    names = ("base", "limit", "type", "code or data", "present", "long", "big", "pages")
    assert list(long[2].values()) == [0, 0xFFFFF, 0xB, 1, 1, 1, 0, 1]
    assert list(flat[2].values()) == [0, 0xFFFFF, 0xB, 1, 1, 0, 1, 1]
    assert list(long[3].values()) == [0, 0xFFFFF, 0x3, 1, 1, 0, 1, 1]
    assert list(long[4].values()) == [0, 0x67, 0xB, 0, 1, 0, 0, 0]
    assert tuple(long[2]) == names
