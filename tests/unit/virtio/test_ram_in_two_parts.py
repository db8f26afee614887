"""Rings and buffers in RAM that the guest sees at two places: below the gap for devices, and from 4 GiB."""

from __future__ import annotations

import mmap
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.errors import GuestMemoryError
from instar.memory import AddressSpace, RamBlock
from instar.testing.virtio_driver import NEXT, WRITE
from instar.virtio.queue import Queue
from instar.virtio.state import QueueState

PART = 1 << 16
HIGH = 1 << 32
LOW_BUFFER, HIGH_BUFFER = 0x8000, HIGH + 0x8000


class Guest:
    """A ring of 8, in either part."""

    def __init__(self, ring: int) -> None:
        space = AddressSpace()
        self.block = RamBlock("ram", mmap.mmap(-1, 2 * PART), fd=-1, share=False, adopted=False)
        space.add_ram(0, self.block, 0, PART)
        space.add_ram(HIGH, self.block, PART)
        self.memory = space.memory
        self.ring = ring
        self.written: list[tuple[int, int]] = []
        self.memory.on_write(lambda gpa, length: self.written.append((gpa, length)))
        self.state = QueueState(size=8, desc=ring, avail=ring + 0x400, used=ring + 0x800)
        self.queue = Queue("requests", self.memory, self.state, 8, list)
        self.queue.enable()

    def offer(self, *descriptors: tuple[int, int, int]) -> None:
        for n, (gpa, length, flags) in enumerate(descriptors):
            entry = struct.pack("<QIHH", gpa, length, flags, n + 1)
            self.memory.write(self.ring + 16 * n, entry)
        self.memory.put_u16(self.ring + 0x402, 1)


@pytest.mark.parametrize("ring", [0x1000, HIGH + 0x1000])
def test_chain_over_both_parts_is_read_and_filled(ring):
    guest = Guest(ring)
    guest.memory.write(LOW_BUFFER, b"low ")
    guest.memory.write(HIGH_BUFFER, b"high")
    guest.offer(
        (LOW_BUFFER, 4, NEXT),
        (HIGH_BUFFER, 4, NEXT),
        (HIGH_BUFFER + 16, 3, NEXT | WRITE),
        (LOW_BUFFER + 16, 3, WRITE),
    )
    guest.written.clear()
    (chain,) = guest.queue.peek()
    assert chain.read(0, 8) == b"low high"
    chain.write(b"abcdef")
    guest.queue.complete(chain, 6)
    assert guest.memory.read(HIGH_BUFFER + 16, 3) == b"abc"
    assert guest.memory.read(LOW_BUFFER + 16, 3) == b"def"
    assert guest.written[:2] == [(HIGH_BUFFER + 16, 3), (LOW_BUFFER + 16, 3)]
    assert bytes(guest.block.view[PART + 0x8010 : PART + 0x8013]) == b"abc"


def test_pieces_that_meet_in_the_block_but_not_for_the_guest_stay_two():
    guest = Guest(0x1000)
    guest.offer((PART - 4, 4, NEXT | WRITE), (HIGH, 4, WRITE))
    (chain,) = guest.queue.peek()
    assert [(gpa, len(view)) for gpa, view in chain.writable] == [(PART - 4, 4), (HIGH, 4)]
    chain.write(b"12345678")
    assert guest.memory.read(PART - 4, 4) + guest.memory.read(HIGH, 4) == b"12345678"


@pytest.mark.parametrize("gpa", [PART - 2, HIGH - 2, HIGH + PART - 2, PART, 2**64 - 2])
def test_buffer_that_leaves_its_part_is_refused(gpa):
    guest = Guest(0x1000)
    guest.offer((gpa, 4, WRITE))
    with pytest.raises(GuestMemoryError):
        list(guest.queue.peek())


def test_ring_that_leaves_its_part_is_refused():
    guest = Guest(0x1000)
    state = QueueState(size=8, desc=PART - 64, avail=0x1400, used=0x1800)
    with pytest.raises(GuestMemoryError):
        Queue("requests", guest.memory, state, 8, list).enable()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0x4000, PART - 32, HIGH - 32, HIGH, HIGH + 0x4000, HIGH + PART - 32]),
            st.integers(0, 48),
            st.integers(1, 48),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_chain_reads_what_is_there_or_is_refused(pieces):
    guest = Guest(0x1000)
    for base in (0, HIGH):
        guest.memory.write(base + 0x4000, bytes(range(256)) * 2)
        guest.memory.write(base + PART - 256, bytes(range(256)))
    rows = [(base + offset, length) for base, offset, length in pieces]
    last = len(rows) - 1
    guest.offer(*((gpa, length, NEXT * (n < last)) for n, (gpa, length) in enumerate(rows)))
    try:
        expected = b"".join(guest.memory.read(gpa, length) for gpa, length in rows)
    except GuestMemoryError:
        expected = None
    try:
        (chain,) = guest.queue.peek()
        got = chain.read(0, chain.size)
    except GuestMemoryError:
        got = None
    assert got == expected
