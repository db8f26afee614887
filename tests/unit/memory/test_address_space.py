"""Guest memory is checked on every access; devices answer in their own window only."""

from __future__ import annotations

import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.errors import GuestMemoryError, InternalBugError
from instar.memory import AddressSpace, RamBlock

BASE = 0x8000_0000
SIZE = 0x4000


class Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def mmio_read(self, offset: int, size: int) -> int:
        self.calls.append(("read", offset, size))
        return 0x55

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        self.calls.append(("write", offset, size, value))


def make_space() -> AddressSpace:
    space = AddressSpace()
    space.add_ram(BASE, RamBlock("ram0", mmap.mmap(-1, SIZE), fd=-1, share=False, adopted=False))
    return space


@given(st.integers(0, 2**64), st.integers(-(2**63), 2**63))
def test_view_of_any_range_is_inside_ram_or_refused(gpa: int, length: int) -> None:
    memory = make_space().memory
    inside = gpa >= BASE and length >= 0 and gpa + length <= BASE + SIZE
    try:
        got = len(memory.view(gpa, length))
    except GuestMemoryError:
        got = -1
    assert got == (length if inside else -1)


@given(st.integers(0, SIZE - 16), st.binary(max_size=16))
def test_write_then_read_returns_the_bytes(offset: int, data: bytes) -> None:
    memory = make_space().memory
    memory.write(BASE + offset, data)
    assert memory.read(BASE + offset, len(data)) == data


def test_integers_are_little_endian_and_aligned() -> None:
    memory = make_space().memory
    memory.put_u32(BASE + 4, 0x11223344)
    assert memory.read(BASE + 4, 4) == bytes.fromhex("44332211")
    assert memory.u16(BASE + 6) == 0x1122
    memory.put_u64(BASE + 8, 2**64 - 1)
    assert memory.u64(BASE + 8) == 2**64 - 1
    memory.put_u16(BASE, 7)
    assert memory.u32(BASE) == 7
    with pytest.raises(GuestMemoryError, match="not aligned to 4"):
        memory.u32(BASE + 2)


def test_device_write_is_told_to_the_cpu() -> None:
    memory = make_space().memory
    told: list[tuple[int, int]] = []
    memory.on_write(lambda gpa, length: told.append((gpa, length)))
    memory.write(BASE + 1, b"abc")
    memory.put_u16(BASE + 8, 1)
    memory.write(BASE, b"")
    assert told == [(BASE + 1, 3), (BASE + 8, 2)]


def test_mmio_reaches_the_device_with_its_offset() -> None:
    space, device = make_space(), Recorder()
    space.add_mmio(0x1000_0000, 0x2000, device, "uart")
    assert space.mmio_read(0x1000_1004, 4) == 0x55
    assert space.mmio_write(0x1000_0000, 1, 9) == 0
    assert device.calls == [("read", 0x1004, 4), ("write", 0, 1, 9)]


@pytest.mark.parametrize("gpa", [0, 0x0FFF_FFFF, 0x1000_0100, 0x1000_00FD, 2**64 - 1])
def test_mmio_where_nothing_answers_is_minus_one(gpa: int) -> None:
    space = make_space()
    space.add_mmio(0x1000_0000, 0x100, Recorder(), "uart")
    assert space.mmio_read(gpa, 4) == -1
    assert space.mmio_write(gpa, 4, 0) == -1


def test_overlapping_devices_are_our_bug() -> None:
    space = make_space()
    space.add_mmio(0x1000_0000, 0x2000, Recorder(), "a")
    with pytest.raises(InternalBugError, match="overlaps a"):
        space.add_mmio(0x1000_1000, 0x100, Recorder(), "b")
    with pytest.raises(InternalBugError, match="not page aligned"):
        space.add_mmio(0x2000_0010, 0x100, Recorder(), "c")


def two_parts() -> AddressSpace:
    """RAM of one block at two places, as an x86 board has it."""
    space = AddressSpace()
    block = RamBlock("ram0", mmap.mmap(-1, 2 * SIZE), fd=-1, share=False, adopted=False)
    space.add_ram(0, block, 0, SIZE)
    space.add_ram(1 << 32, block, SIZE)
    return space


def test_ram_in_two_parts_is_one_block_at_two_places() -> None:
    space = two_parts()
    space.memory.write(SIZE - 4, b"low.")
    space.memory.put_u32(1 << 32, 0x6867_6968)
    block = space.ram[0].block
    assert bytes(block.view[SIZE - 4 : SIZE + 4]) == b"low.high"
    assert [(r.base, r.end, r.start, r.size) for r in space.ram] == [
        (0, SIZE, 0, SIZE),
        (1 << 32, (1 << 32) + SIZE, SIZE, SIZE),
    ]
    assert [(base, len(view)) for base, view in space.memory.regions()] == [
        (0, SIZE),
        (1 << 32, SIZE),
    ]


@given(
    st.sampled_from([0, SIZE, 1 << 32, (1 << 32) + SIZE]), st.integers(-9, 9), st.integers(0, 18)
)
def test_access_to_ram_in_two_parts_is_inside_one_or_refused(edge, offset, length) -> None:
    memory = two_parts().memory
    gpa = edge + offset
    inside = any(base <= gpa and gpa + length <= base + SIZE for base in (0, 1 << 32))
    try:
        got = memory.read(gpa, length) == bytes(length)
    except GuestMemoryError:
        got = False
    assert got == inside


@pytest.mark.parametrize(
    ("base", "start", "size", "text"),
    [
        (0x1000, 0, -1, "overlaps"),
        (1 << 33, 0, 3 * SIZE, "not in a block"),
        (1 << 33, 2 * SIZE, -1, "not in a block"),
        (1 << 33, -4096, 4096, "not in a block"),
    ],
)
def test_ram_that_is_not_there_or_overlaps_is_refused(base, start, size, text) -> None:
    space = two_parts()
    with pytest.raises(InternalBugError, match=text):
        space.add_ram(base, space.ram[0].block, start, size)
    assert len(space.ram) == 2


class Ports:
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def pio_read(self, offset: int, size: int) -> int:
        self.calls.append(("read", offset, size))
        return 0x55

    def pio_write(self, offset: int, size: int, value: int) -> None:
        self.calls.append(("write", offset, size, value))


def test_device_at_ports_answers_in_its_own_only() -> None:
    space, device = AddressSpace(), Ports()
    space.add_pio(0x3F8, 8, device, "serial")
    assert (space.pio_read(0x3F9, 1), space.pio_write(0x3FF, 1, 7)) == (0x55, 0)
    assert (space.pio_read(0x400, 1), space.pio_write(0x3F7, 1, 7)) == (-1, -1)
    assert (space.pio_read(0x3FF, 2), space.pio_write(0x3FE, 4, 7)) == (-1, -1)
    assert device.calls == [("read", 1, 1), ("write", 7, 1, 7)]


def test_ports_that_are_taken_or_do_not_exist_are_refused() -> None:
    space = AddressSpace()
    space.add_pio(0x60, 5, Ports(), "one")
    with pytest.raises(InternalBugError, match="0x64 belongs to one"):
        space.add_pio(0x64, 1, Ports(), "two")
    for base, size in ((0xFFFF, 2), (-1, 1), (0, 0)):
        with pytest.raises(InternalBugError, match="do not exist"):
            space.add_pio(base, size, Ports(), "three")
