"""The ring between us and a back end; the back end's half is written by hand here."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.vhostuser.protocol import BackendError
from instar.vhostuser.ring import BYTES, Ring


class Backend:
    """The other half of a ring, in the same memory."""

    def __init__(self, size: int) -> None:
        self.memory = memoryview(bytearray(BYTES))
        self.u16, self.u32 = self.memory.cast("H"), self.memory.cast("I")
        self.ring = Ring(self.memory)
        self.ring.clear(size)
        self.seen = self.used = 0

    def available(self) -> list[int]:
        heads = []
        while self.seen != self.u16[1]:
            heads.append(self.u16[2 + self.seen % self.ring.size])
            self.seen = (self.seen + 1) & 0xFFFF
        return heads

    def use(self, head: int, length: int) -> None:
        at = 1024 + 1 + 2 * (self.used % self.ring.size)
        self.u32[at], self.u32[at + 1] = head, length
        self.used = (self.used + 1) & 0xFFFF
        self.u16[2049] = self.used


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 1 << 20)), max_size=40))
def test_ring_passes_heads_and_lengths_in_order(chains):
    backend = Backend(8)
    got = []
    for head, length in chains:
        backend.ring.offer(head)
        assert backend.available() == [head]
        backend.use(head, length)
        got.append(backend.ring.take())
    assert got == chains
    assert backend.ring.take() is None


def test_ring_goes_on_across_the_wrap_of_its_indexes():
    backend = Backend(8)
    backend.ring.go_on(8, 0xFFFF, 0xFFFF)
    backend.seen = backend.used = 0xFFFF
    backend.u16[1] = backend.u16[2049] = 0xFFFF
    for head in (3, 5):
        backend.ring.offer(head)
        backend.use(head, 1)
    assert backend.available() == [3, 5]
    assert [backend.ring.take(), backend.ring.take(), backend.ring.take()] == [
        (3, 1),
        (5, 1),
        None,
    ]
    assert backend.ring.offered == 1


def test_ring_whose_used_index_jumps_is_refused():
    backend = Backend(8)
    backend.u16[2049] = 9
    with pytest.raises(BackendError, match="jumped by 9, ring size 8"):
        backend.ring.take()


@pytest.mark.parametrize("reply", [1, 0x1_0000, 0xFFF0])
def test_ring_stop_at_an_index_that_never_was_is_refused(reply):
    backend = Backend(8)
    with pytest.raises(BackendError, match="stopped at"):
        backend.ring.base(reply)


def test_ring_stop_before_what_was_offered_is_taken():
    backend = Backend(8)
    backend.ring.offer(0)
    assert backend.ring.base(0) == 0
    assert backend.ring.base(1) == 1
