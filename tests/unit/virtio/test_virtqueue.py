"""The split ring against drivers that follow the rules, and guests that do not."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr import state as cpr_state
from instar.cpr.errors import StateInvalidError
from instar.errors import GuestError, GuestMemoryError, InternalBugError, QueueError
from instar.testing.fakes import RAM_BASE, make_space
from instar.testing.virtio_driver import INDIRECT, NEXT, WRITE
from instar.virtio.features import EVENT_IDX, INDIRECT_DESC
from instar.virtio.queue import Queue
from instar.virtio.state import QueueState

DESC, AVAIL, USED, BUFFERS = RAM_BASE, RAM_BASE + 0x400, RAM_BASE + 0x800, RAM_BASE + 0x1000
RAM_END = RAM_BASE + (1 << 16)


class Guest:
    """A ring of 8 with nothing in it, written by hand."""

    def __init__(self, features: int = 0) -> None:
        self.memory = make_space(1 << 16).memory
        self.interrupts = 0
        self.state = QueueState(size=8, desc=DESC, avail=AVAIL, used=USED)
        self.queue = Queue("requests", self.memory, self.state, 16, self.interrupt)
        self.queue.features = features
        self.queue.enable()

    def interrupt(self) -> None:
        self.interrupts += 1

    def desc(self, index, gpa, length, flags=0, following=0, table=DESC) -> None:
        entry = struct.pack("<QIHH", gpa, length, flags, following)
        self.memory.write(table + 16 * index, entry)

    def offer(self, *heads: int) -> None:
        index = self.memory.u16(AVAIL + 2)
        for n, head in enumerate(heads):
            self.memory.put_u16(AVAIL + 4 + 2 * ((index + n) % 8), head)
        self.memory.put_u16(AVAIL + 2, (index + len(heads)) & 0xFFFF)

    def serve(self) -> list[int]:
        """Answer everything as a device would; return the heads."""
        heads = []
        for chain in self.queue.peek():
            self.queue.complete(chain, 0)
            heads.append(chain.head)
        self.queue.notify()
        return heads


@pytest.fixture
def guest() -> Guest:
    return Guest(INDIRECT_DESC)


def test_chain_readable_and_writable_is_read_and_filled(guest):
    guest.desc(0, BUFFERS, 4, NEXT, 1)
    guest.desc(1, BUFFERS + 16, 3, NEXT | WRITE, 2)
    guest.desc(2, BUFFERS + 32, 3, WRITE)
    guest.memory.write(BUFFERS, b"ping")
    guest.offer(0)
    (chain,) = [c for c in guest.queue.peek() if guest.queue.take(c) is None]
    assert (chain.size, chain.room, chain.read(1, 3)) == (4, 6, b"ing")
    chain.write(b"abcd", 1)
    assert guest.memory.read(BUFFERS + 16, 3) == b"\0ab"
    assert guest.memory.read(BUFFERS + 32, 3) == b"cd\0"
    assert [bytes(v) for v in chain.targets(2, 2)] == [b"b", b"c"]


def test_complete_writes_used_element_then_index(guest):
    guest.desc(3, BUFFERS, 5, WRITE)
    guest.offer(3)
    for chain in guest.queue.peek():
        guest.queue.complete(chain, 5)
    assert struct.unpack("<II", guest.memory.read(USED + 4, 8)) == (3, 5)
    assert guest.memory.u16(USED + 2) == 1


def test_peek_without_answer_offers_the_same_chain_again(guest):
    guest.desc(0, BUFFERS, 1)
    guest.offer(0, 0)
    assert [c.head for c in guest.queue.peek()] == [0]
    assert guest.queue.pending()
    assert guest.serve() == [0, 0]
    assert not guest.queue.pending()


def test_take_two_complete_out_of_order_leaves_nothing_in_flight(guest):
    guest.desc(0, BUFFERS, 1)
    guest.desc(1, BUFFERS, 1)
    guest.offer(0, 1)
    first, second = [c for c in guest.queue.peek() if guest.queue.take(c) is None]
    assert guest.state.in_flight == [0, 1]
    guest.queue.complete(second, 0)
    guest.queue.complete(first, 0)
    assert guest.state.in_flight == []
    assert guest.memory.u32(USED + 4) == 1


def test_complete_together_shows_all_elements_at_once(guest):
    guest.desc(0, BUFFERS, 4, WRITE)
    guest.desc(1, BUFFERS + 16, 4, WRITE)
    guest.state.next_used = 0xFFFF
    guest.offer(0, 1)
    chains = [c for c in guest.queue.peek() if guest.queue.take(c) is None]
    seen: list[int] = []
    guest.memory.on_write(lambda *_: seen.append(guest.memory.u16(USED + 2)))
    guest.queue.complete_together(chains, [4, 3])
    assert seen == [1]
    assert struct.unpack("<II", guest.memory.read(USED + 4 + 8 * 7, 8)) == (0, 4)
    assert struct.unpack("<II", guest.memory.read(USED + 4, 8)) == (1, 3)
    assert (guest.state.in_flight, guest.state.next_used) == ([], 1)


def test_complete_together_after_disable_touches_no_ring(guest):
    guest.desc(0, BUFFERS, 4, WRITE)
    guest.offer(0)
    chains = [c for c in guest.queue.peek() if guest.queue.take(c) is None]
    guest.queue.disable()
    guest.queue.complete_together(chains, [4])
    assert guest.memory.u16(USED + 2) == 0


def test_complete_twice_is_our_bug(guest):
    guest.desc(0, BUFFERS, 1)
    guest.offer(0)
    (chain,) = list(guest.queue.peek())
    guest.queue.complete(chain, 0)
    with pytest.raises(InternalBugError):
        guest.queue.complete(chain, 0)


def test_write_beyond_room_is_our_bug(guest):
    guest.desc(0, BUFFERS, 4, WRITE)
    guest.offer(0)
    (chain,) = list(guest.queue.peek())
    with pytest.raises(InternalBugError):
        chain.write(b"12345")


def test_complete_after_disable_touches_no_ring(guest):
    guest.desc(0, BUFFERS, 1)
    guest.offer(0)
    (chain,) = [c for c in guest.queue.peek() if guest.queue.take(c) is None]
    guest.queue.disable()
    guest.queue.complete(chain, 0)
    assert guest.memory.u16(USED + 2) == 0


def test_in_flight_after_load_reads_the_same_chains(guest):
    guest.desc(2, BUFFERS, 7)
    guest.offer(2)
    for chain in guest.queue.peek():
        guest.queue.take(chain)
    loaded = cpr_state.load(QueueState, 1, cpr_state.save(guest.state))
    queue = Queue("requests", guest.memory, loaded, 16, guest.interrupt)
    assert [(c.head, c.size) for c in queue.in_flight()] == [(2, 7)]


def test_virtio_2_7_5_3_2_indirect_table_is_followed(guest):
    guest.desc(0, BUFFERS, 4, NEXT, 1)
    guest.desc(1, BUFFERS + 0x100, 32, INDIRECT | WRITE)  # the device ignores WRITE here
    guest.desc(0, BUFFERS + 8, 4, NEXT, 1, table=BUFFERS + 0x100)
    guest.desc(1, BUFFERS + 16, 9, WRITE, table=BUFFERS + 0x100)
    guest.offer(0)
    (chain,) = list(guest.queue.peek())
    assert (chain.size, chain.room) == (8, 9)


def test_virtio_2_7_5_3_1_indirect_inside_indirect_is_refused(guest):
    guest.desc(0, BUFFERS, 32, INDIRECT)
    guest.desc(0, BUFFERS + 64, 16, INDIRECT, table=BUFFERS)
    guest.offer(0)
    with pytest.raises(QueueError, match="is inside another"):
        guest.serve()


def test_virtio_2_7_5_3_1_indirect_with_next_is_refused(guest):
    guest.desc(0, BUFFERS, 32, INDIRECT | NEXT, 1)
    guest.offer(0)
    with pytest.raises(QueueError, match="not the last"):
        guest.serve()


def test_virtio_2_7_5_3_1_indirect_not_negotiated_is_refused():
    guest = Guest()
    guest.desc(0, BUFFERS, 32, INDIRECT)
    guest.offer(0)
    with pytest.raises(QueueError, match="not negotiated"):
        guest.serve()


@pytest.mark.parametrize("length", [0, 8, 17, 16 * 17, 0xFFFF_FFF0])
def test_indirect_table_of_odd_size_is_refused(guest, length):
    guest.desc(0, BUFFERS, length, INDIRECT)
    guest.offer(0)
    with pytest.raises(QueueError, match="multiple of 16"):
        guest.serve()


def test_indirect_table_outside_ram_is_refused(guest):
    guest.desc(0, RAM_END - 16, 32, INDIRECT)
    guest.offer(0)
    with pytest.raises(GuestMemoryError):
        guest.serve()


@pytest.mark.parametrize(("flags", "following"), [(NEXT, 0), (NEXT, 8), (NEXT, 0xFFFF)])
def test_chain_that_loops_or_leaves_the_table_is_refused(guest, flags, following):
    guest.desc(0, BUFFERS, 1, flags, following)
    guest.offer(0)
    with pytest.raises(QueueError, match="loops"):
        guest.serve()


def test_indirect_chain_that_loops_is_refused(guest):
    guest.desc(0, BUFFERS, 32, INDIRECT)
    guest.desc(0, BUFFERS + 64, 1, NEXT, 1, table=BUFFERS)
    guest.desc(1, BUFFERS + 64, 1, NEXT, 0, table=BUFFERS)
    guest.offer(0)
    with pytest.raises(QueueError, match="loops"):
        guest.serve()


def test_head_outside_the_table_is_refused(guest):
    guest.offer(8)
    with pytest.raises(QueueError, match="descriptor 8 of 8"):
        guest.serve()


@pytest.mark.parametrize(
    ("gpa", "length"),
    [(RAM_END - 1, 2), (RAM_BASE - 1, 1), (0, 1), ((1 << 64) - 1, 1), ((1 << 64) - 1, 0x1000)],
)
def test_buffer_outside_ram_is_refused(guest, gpa, length):
    guest.desc(0, gpa, length)
    guest.offer(0)
    with pytest.raises(GuestMemoryError):
        guest.serve()


def test_empty_buffer_is_refused(guest):
    guest.desc(0, BUFFERS, 0)
    guest.offer(0)
    with pytest.raises(QueueError, match="is empty"):
        guest.serve()


def test_chain_of_4_gib_is_refused(guest):
    guest.desc(0, BUFFERS, 0xFFFF_FFFF)
    guest.offer(0)
    with pytest.raises(QueueError, match="limit"):
        guest.serve()


def test_virtio_2_7_4_2_readable_after_writable_is_refused(guest):
    guest.desc(0, BUFFERS, 1, NEXT | WRITE, 1)
    guest.desc(1, BUFFERS, 1)
    guest.offer(0)
    with pytest.raises(QueueError, match="after a writable"):
        guest.serve()


def test_available_index_jump_beyond_size_is_refused(guest):
    guest.memory.put_u16(AVAIL + 2, 9)
    with pytest.raises(QueueError, match="jumped by 9"):
        guest.serve()


def test_available_index_going_back_is_refused(guest):
    guest.memory.put_u16(AVAIL + 2, 0xFFFF)
    with pytest.raises(QueueError, match="jumped"):
        guest.serve()


def test_head_already_in_flight_is_refused(guest):
    guest.desc(0, BUFFERS, 1)
    guest.offer(0, 0)
    chains = guest.queue.peek()
    guest.queue.take(next(chains))
    with pytest.raises(QueueError, match="there twice"):
        next(chains)


def test_index_wraps_at_65536(guest):
    guest.desc(0, BUFFERS, 1)
    guest.state.next_avail = guest.state.next_used = guest.state.signalled = 0xFFFE
    guest.memory.put_u16(AVAIL + 2, 0xFFFE)
    guest.offer(0, 0, 0)
    assert guest.serve() == [0, 0, 0]
    assert (guest.state.next_used, guest.memory.u16(USED + 2)) == (1, 1)


@pytest.mark.parametrize("size", [0, 3, 32, 1 << 31])
def test_enable_with_bad_size_is_refused(guest, size):
    guest.queue.disable()
    guest.state.size = size
    with pytest.raises(QueueError, match="power of 2"):
        guest.queue.enable()
    assert not guest.state.ready


@pytest.mark.parametrize("part", ["desc", "avail", "used"])
def test_virtio_2_7_enable_misaligned_is_refused(guest, part):
    guest.queue.disable()
    setattr(guest.state, part, RAM_BASE + 1)
    with pytest.raises(QueueError, match="not aligned"):
        guest.queue.enable()


@pytest.mark.parametrize("part", ["desc", "avail", "used"])
def test_enable_with_ring_outside_ram_is_refused(guest, part):
    guest.queue.disable()
    setattr(guest.state, part, RAM_END - 16)
    with pytest.raises(GuestMemoryError):
        guest.queue.enable()


def test_virtio_2_7_7_no_interrupt_flag_suppresses(guest):
    guest.desc(0, BUFFERS, 1)
    guest.memory.put_u16(AVAIL, 1)
    guest.offer(0)
    guest.serve()
    assert guest.interrupts == 0


def test_notify_without_news_does_not_interrupt(guest):
    guest.desc(0, BUFFERS, 1)
    guest.offer(0)
    guest.serve()
    guest.queue.notify()
    assert guest.interrupts == 1


@pytest.mark.parametrize(("event", "interrupts"), [(0, 1), (1, 1), (2, 0), (0xFFFF, 0)])
def test_virtio_2_7_7_used_event_chooses_the_interrupt(event, interrupts):
    guest = Guest(EVENT_IDX)
    guest.desc(0, BUFFERS, 1)
    guest.memory.put_u16(AVAIL + 4 + 16, event)
    guest.offer(0, 0)
    guest.serve()
    assert guest.interrupts == interrupts


def test_virtio_2_7_10_avail_event_asks_for_the_next_kick():
    guest = Guest(EVENT_IDX)
    guest.desc(0, BUFFERS, 1)
    guest.offer(0, 0, 0)
    guest.serve()
    assert guest.memory.u16(USED + 4 + 64) == 3


@pytest.mark.parametrize(
    "change",
    [{"size": 3}, {"size": 2048}, {"in_flight": [1, 1]}, {"in_flight": [8]}],
)
def test_state_that_contradicts_itself_is_refused(guest, change):
    record = cpr_state.save(guest.state) | change
    with pytest.raises(StateInvalidError):
        cpr_state.load(QueueState, 1, record)


address = st.one_of(
    st.integers(RAM_BASE, RAM_BASE + 0x2000),
    st.integers(RAM_END - 64, RAM_END + 64),
    st.integers(0, (1 << 64) - 1),
)
length = st.one_of(st.integers(0, 64), st.sampled_from([16, 32, 0x1000, 0xFFFF_FFFF]))
descriptor = st.tuples(st.integers(0, 7), address, length, st.integers(0, 15), st.integers(0, 9))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(descriptor, max_size=12),
    st.lists(st.integers(0, 9), max_size=10),
    st.sampled_from([0, INDIRECT_DESC, EVENT_IDX, INDIRECT_DESC | EVENT_IDX]),
    st.booleans(),
)
def test_any_ring_ends_with_every_taken_chain_answered_or_a_guest_error(
    descriptors, heads, features, take
):
    guest = Guest(features)
    for index, gpa, size, flags, following in descriptors:
        guest.desc(index, gpa, size, flags, following)
    guest.offer(*heads)
    taken, failed = [], False
    try:
        for chain in guest.queue.peek():
            (guest.queue.take if take else guest.queue.complete)(chain, *([] if take else [0]))
            taken.append(chain)
    except GuestError:
        failed = True
    assert failed or guest.state.next_avail == len(heads)
    for chain in taken if take else []:
        guest.queue.complete(chain, 0)
    assert guest.state.in_flight == []
    assert guest.state.next_used == len(taken) == guest.state.next_avail
