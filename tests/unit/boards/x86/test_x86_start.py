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


def test_long_mode_start_is_what_linux_wants():
    start = StartState(LINUX64, 0x1000200, layout.BOOT_PARAMS)
    assert (start.rip, start.rsi, start.rflags) == (0x1000200, layout.BOOT_PARAMS, 2)
    assert (start.cr0, start.cr3, start.cr4) == (0x8000_0011, layout.PAGE_TABLES, 0x20)
    assert start.efer == 0x500
    assert (start.code.selector, start.data.selector) == (0x10, 0x18)
    assert start.code.long
    assert not start.code.big


def test_pvh_start_is_flat_and_without_paging():
    start = StartState(PVH, 0x1000000, layout.START_INFO)
    assert (start.rip, start.rbx, start.cr0, start.cr3) == (0x1000000, layout.START_INFO, 0x11, 0)
    assert (start.cr4, start.efer) == (0, 0)
    assert start.code.big
    assert (start.task.limit, start.task.kind, start.task.system) == (0x67, 0xB, True)


def test_descriptors_are_those_of_flat_segments():
    long = struct.unpack("<6Q", descriptor_table(LINUX64))
    flat = struct.unpack("<6Q", descriptor_table(PVH))
    assert [hex(entry) for entry in long[2:5]] == [
        "0xaf9b000000ffff",
        "0xcf93000000ffff",
        "0x8b0000000067",
    ]
    assert hex(flat[2]) == "0xcf9b000000ffff"
    assert StartState(PVH, 0, 0).gdt_limit == len(descriptor_table(PVH)) - 1
