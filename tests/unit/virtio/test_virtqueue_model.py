"""The compiled walk against a slow one that can be read at a glance, on rings that a hostile guest wrote."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from instar.errors import GuestError
from instar.testing.fakes import RAM_BASE, make_space
from instar.virtio.features import INDIRECT_DESC
from instar.virtio.queue import MAX_BYTES, Queue
from instar.virtio.state import QueueState

NEXT, WRITE, INDIRECT = 1, 2, 4
RAM_SIZE = 1 << 16
DESC, AVAIL, USED = RAM_BASE, RAM_BASE + 0x400, RAM_BASE + 0x800
TABLES = RAM_BASE + 0x1000
SIZE, LIMIT = 8, 16


class RefusedError(Exception):
    """The model would not take the chain."""


def fetch(ram: memoryview, gpa: int, length: int) -> memoryview:
    start = gpa - RAM_BASE
    if start < 0 or start + length > RAM_SIZE:
        raise RefusedError
    return ram[start : start + length]


def follow(ram: memoryview, features: int, head: int) -> tuple[list, list]:
    """Return the readable and the writable bytes of a chain as (guest address, length)."""
    table, limit, index, steps, indirect = DESC, SIZE, head, 0, False
    readable, writable = [], []
    while True:
        if index >= limit or steps == limit:
            raise RefusedError
        gpa, length, flags, following = struct.unpack("<QIHH", fetch(ram, table + 16 * index, 16))
        steps += 1
        if flags & INDIRECT:
            wrong = indirect or flags & NEXT or not features & INDIRECT_DESC
            if wrong or length % 16 or not 16 <= length <= 16 * LIMIT:
                raise RefusedError
            fetch(ram, gpa, length)
            table, limit, index, steps, indirect = gpa, length // 16, 0, 0, True
            continue
        total = sum(size for _, size in readable + writable)
        if length == 0 or total + length > MAX_BYTES or (writable and not flags & WRITE):
            raise RefusedError
        fetch(ram, gpa, length)
        (writable if flags & WRITE else readable).append((gpa, length))
        if not flags & NEXT:
            return readable, writable
        index = following


def bytes_of(ram: memoryview, segments: list) -> bytes:
    return b"".join(fetch(ram, gpa, length) for gpa, length in segments)


ADDRESSES = st.one_of(
    st.sampled_from(
        [RAM_BASE - 1, RAM_BASE + RAM_SIZE - 8, TABLES, TABLES + 64, 0, (1 << 64) - 1]
    ),
    st.integers(RAM_BASE, RAM_BASE + RAM_SIZE),
)
LENGTHS = st.one_of(
    st.integers(1, 300), st.sampled_from([0, 16, 32, 128, 256, 272, MAX_BYTES, 0xFFFF_FFFF])
)
FLAGS = st.sampled_from(
    [0, NEXT, WRITE, NEXT | WRITE, INDIRECT, INDIRECT | WRITE, INDIRECT | NEXT]
)
DESCRIPTORS = st.tuples(ADDRESSES, LENGTHS, FLAGS, st.integers(0, SIZE + 1))
# Descriptors that a driver could have made: most random ones are refused at once.
TAME = st.tuples(
    st.integers(RAM_BASE + 0x2000, RAM_BASE + RAM_SIZE - 300),
    st.integers(1, 300),
    st.sampled_from([NEXT, NEXT | WRITE, WRITE]),
    st.integers(0, SIZE - 1),
)
TO_TABLE = st.tuples(
    st.sampled_from([TABLES, TABLES + 64]),
    st.sampled_from([16, 64, 128]),
    st.just(INDIRECT),
    st.just(0),
)


@settings(max_examples=150, deadline=None)
@given(
    ring=st.lists(st.one_of(TAME, TO_TABLE, DESCRIPTORS), min_size=SIZE, max_size=SIZE),
    table=st.lists(st.one_of(TAME, TAME, DESCRIPTORS), min_size=12, max_size=12),
    head=st.integers(0, SIZE),
    features=st.sampled_from([0, INDIRECT_DESC]),
)
def test_chain_of_any_ring_is_what_the_model_finds_or_refused_by_both(ring, table, head, features):
    space = make_space(RAM_SIZE)
    ram = space.ram[0].view
    for n, descriptor in enumerate(ring):
        space.memory.write(DESC + 16 * n, struct.pack("<QIHH", *descriptor))
    for n, descriptor in enumerate(table):
        space.memory.write(TABLES + 16 * n, struct.pack("<QIHH", *descriptor))
    space.memory.put_u16(AVAIL + 4, head)
    space.memory.put_u16(AVAIL + 2, 1)
    state = QueueState(size=SIZE, desc=DESC, avail=AVAIL, used=USED)
    queue = Queue("requests", space.memory, state, LIMIT, list)
    queue.features = features
    queue.enable()
    found = chain = expected = None
    try:
        expected = follow(ram, features, head)
    except RefusedError:
        expected = None
    try:
        (chain,) = queue.peek()
        found = chain.read(0, chain.size), b"".join(chain.targets(0, chain.room))
    except GuestError:
        found = None
    assert found == (expected and tuple(bytes_of(ram, segments) for segments in expected))
    assert state.next_avail == 0


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    gaps=st.lists(st.integers(0, 1), min_size=6, max_size=6),
    data=st.data(),
)
def test_writes_into_any_part_of_the_room_change_and_announce_just_that(lengths, gaps, data):
    space = make_space(RAM_SIZE)
    ram = space.ram[0].view
    at, places = RAM_BASE + 0x2000, []
    for n, (length, gap) in enumerate(zip(lengths, gaps, strict=False)):
        flags = WRITE | (NEXT if n + 1 < len(lengths) else 0)
        space.memory.write(DESC + 16 * n, struct.pack("<QIHH", at, length, flags, n + 1))
        places += range(at - RAM_BASE, at - RAM_BASE + length)
        at += length + gap
    space.memory.put_u16(AVAIL + 2, 1)
    state = QueueState(size=SIZE, desc=DESC, avail=AVAIL, used=USED)
    queue = Queue("requests", space.memory, state, LIMIT, list)
    queue.enable()
    (chain,) = queue.peek()
    offset = data.draw(st.integers(0, chain.room))
    count = data.draw(st.integers(0, chain.room - offset))
    told: list[int] = []
    space.memory.on_write(lambda gpa, n: told.extend(range(gpa - RAM_BASE, gpa - RAM_BASE + n)))
    wanted = places[offset : offset + count]
    expected = bytearray(ram)
    for place in wanted:
        expected[place] = 0xFF
    chain.write(b"\xff" * count, offset)
    assert (bytes(ram), told) == (bytes(expected), wanted)
    told.clear()
    chain.filled(offset, count)
    assert told == wanted
    assert b"".join(chain.targets(offset, count)) == b"\xff" * count
