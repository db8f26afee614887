"""The last bytes are kept, the oldest forgotten."""

from __future__ import annotations

import pytest
from chardev_fakes import FakeLoop
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.chardev.ringbuf import RingChardev
from instar.errors import ConfigError


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=40), max_size=12))
def test_the_last_bytes_written_are_kept(pieces) -> None:
    ring = RingChardev("c0", 64, FakeLoop())
    for piece in pieces:
        ring.write(piece)
    assert ring.take(1000) == b"".join(pieces)[-64:]
    assert ring.take(1000) == b""


@pytest.mark.parametrize("size", [3, 1 << 24])
def test_size_that_is_not_allowed_is_refused(size) -> None:
    with pytest.raises(ConfigError, match="a power of 2 up to 8388608"):
        RingChardev("c0", size, FakeLoop())


def test_smaller_ring_after_an_update_keeps_the_end() -> None:
    ring = RingChardev("c0", 8, FakeLoop())
    ring.write(b"12345678")
    smaller = RingChardev("c0", 4, FakeLoop())
    smaller.load_state(ring.save_state())
    assert smaller.take(9) == b"5678"
