"""Output waits and input is asked for, whatever the host does; no descriptor is really used here."""

from __future__ import annotations

import pytest
from chardev_fakes import FakeLoop, FakeStream
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.chardev.null import NullChardev
from instar.chardev.state import MAX_UNSENT, ChardevState


class FrontEnd:
    def __init__(self, room=100):
        self.room = room
        self.got = b""
        self.events = []

    def attach(self, device):
        device.attach(
            receive=self.receive, can_receive=lambda: self.room, event=self.events.append
        )

    def receive(self, data):
        assert len(data) <= self.room
        self.room -= len(data)
        self.got += data


@pytest.fixture
def stream():
    return FakeStream(FakeLoop())


@pytest.fixture
def front(stream):
    front = FrontEnd()
    front.attach(stream)
    return front


@settings(max_examples=50)
@given(st.lists(st.tuples(st.binary(max_size=20), st.integers(0, 15))))
def test_output_arrives_in_order_whatever_the_host_takes(steps) -> None:
    stream = FakeStream(FakeLoop())
    for data, taken in steps:
        stream.takes = taken
        stream.write(data)
        stream.loop.ready_out(stream)
    stream.takes = 1 << 20
    stream.loop.ready_out(stream)
    assert stream.host == b"".join(data for data, _ in steps)
    assert stream.pending() == 0


@settings(max_examples=50)
@given(st.binary(max_size=60), st.lists(st.integers(0, 9), max_size=20))
def test_input_never_exceeds_the_room_and_is_not_lost(data, rooms) -> None:
    stream, front = FakeStream(FakeLoop()), FrontEnd(room=0)
    front.attach(stream)
    stream.input = data
    for room in rooms:
        front.room = room
        stream.accept_input()
        stream.loop.ready_in(stream)
    front.room = 100
    stream.accept_input()
    stream.loop.ready_in(stream)
    assert front.got + stream.input == data


def test_watch_follows_what_is_of_use(stream, front) -> None:
    assert stream.loop.watching(stream) == (True, False)
    stream.takes = 0
    stream.write(b"x")
    assert stream.loop.watching(stream) == (True, True)
    front.room = 0
    stream.accept_input()
    assert stream.loop.watching(stream) == (False, True)
    stream.takes = 9
    stream.loop.ready_out(stream)
    assert stream.loop.watching(stream) == (False, False)
    assert front.events == ["drained"]


def test_end_of_input_leaves_the_output_in_use(stream, front) -> None:
    stream.input = None
    stream.loop.ready_in(stream)
    assert front.events == ["closed"]
    stream.takes = 9
    stream.write(b"still")
    assert stream.host == b"still"
    assert stream.loop.watching(stream) == (False, False)


def test_output_that_nobody_can_take_is_discarded(stream, front) -> None:
    stream.takes = 0
    stream.write(b"abc")
    stream.error = OSError(5, "gone")
    stream.loop.ready_out(stream)
    stream.write(b"def")
    assert (stream.pending(), stream.host) == (0, b"")
    assert front.events == ["drained"]


def test_output_beyond_the_limit_is_counted(stream) -> None:
    stream.takes = 0
    stream.write(bytes(MAX_UNSENT - 1))
    stream.write(b"abc")
    assert (stream.pending(), stream.lost) == (MAX_UNSENT, 2)


def test_unsent_output_goes_on_after_an_update(stream) -> None:
    stream.takes = 0
    stream.write(b"before ")
    after = FakeStream(FakeLoop())
    after.takes = 0
    after.load_state(stream.save_state())
    after.write(b"after")
    after.takes = 100
    after.loop.ready_out(after)
    assert after.host == b"before after"
    assert stream.pending() == len(b"before ")


def test_detached_device_reads_nothing(stream, front) -> None:
    stream.detach()
    assert stream.loop.watching(stream) == (False, False)
    assert not stream.frontend_open
    assert front.got == b""


def test_null_takes_everything() -> None:
    device = NullChardev("n", FakeLoop())
    device.write(b"x")
    assert (device.pending(), device.filename, device.save_state()) == (0, "null", ChardevState())
    assert device.take_gift() == -1
    assert device.parts() == (device,)
