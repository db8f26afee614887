"""Several front ends share a device: who gets the input, what waits, and all of it across an update."""

from __future__ import annotations

import pytest
from chardev_fakes import FakeLoop, FakeStream
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.chardev.mux import MuxChardev
from instar.chardev.state import MAX_SHARES, MAX_WAITING, MuxState
from instar.cpr.state import save
from instar.errors import ConfigError


class FrontEnd:
    def __init__(self, share, room=1 << 20):
        self.share = share
        self.room = room
        self.got = b""
        self.events = []
        share.attach(receive=self.receive, can_receive=lambda: self.room, event=self.events.append)

    def receive(self, data):
        self.room -= len(data)
        self.got += data


class Shared:
    """A mux with a serial line and a monitor, and somebody who types."""

    def __init__(self, room=1 << 20):
        self.stream = FakeStream(FakeLoop())
        self.mux = MuxChardev(self.stream, self.stream.loop)
        self.serial = FrontEnd(self.mux.share("serial"), room)
        self.monitor = FrontEnd(self.mux.share("monitor"))

    def type(self, data):
        self.stream.input += data
        while self.stream.input and self.stream.loop.watching(self.stream)[0]:
            self.stream.loop.ready_in(self.stream)


@pytest.fixture
def shared():
    return Shared()


def test_first_front_end_has_the_focus(shared) -> None:
    shared.type(b"abc")
    assert (shared.serial.got, shared.monitor.got) == (b"abc", b"")
    assert shared.mux.focused is shared.serial.share


def test_ctrl_a_c_switches_and_back(shared) -> None:
    shared.type(b"a\x01cb\x01cc")
    assert (shared.serial.got, shared.monitor.got) == (b"ac", b"b")
    assert (shared.serial.events, shared.monitor.events) == ([], ["focus"])


def test_ctrl_a_twice_sends_it_once(shared) -> None:
    shared.type(b"\x01\x01x")
    assert shared.serial.got == b"\x01x"


def test_ctrl_a_x_tells_the_monitor(shared) -> None:
    shared.type(b"\x01x")
    assert (shared.serial.events, shared.monitor.events) == ([], ["exit"])
    assert shared.stream.host == b"Instar: Terminated\r\n"


def test_ctrl_a_h_helps_and_b_breaks(shared) -> None:
    shared.type(b"\x01h\x01b")
    assert b"Ctrl-a c" in shared.stream.host
    assert shared.serial.events == ["break"]
    assert shared.serial.got == b""


def test_monitor_out_of_focus_is_held_back_until_it_is_looked_at(shared) -> None:
    shared.monitor.share.write(b"(instar) ")
    shared.serial.share.write(b"login: ")
    assert shared.stream.host == b"login: "
    assert shared.monitor.share.pending() == len(b"(instar) ")
    shared.type(b"\x01c")
    assert shared.stream.host == b"login: (instar) "


def test_switching_works_while_the_guest_reads_nothing() -> None:
    shared = Shared(room=0)
    shared.type(b"typed ahead\x01cinfo")
    assert (shared.serial.got, shared.monitor.got) == (b"", b"info")
    shared.serial.room = 100
    shared.serial.share.accept_input()
    assert shared.serial.got == b"typed ahead"


def test_input_beyond_the_limit_stays_at_the_host() -> None:
    shared = Shared(room=0)
    shared.type(bytes(MAX_WAITING + 10))
    assert len(shared.stream.input) == 10


def test_input_that_switches_fits_wherever_it_goes() -> None:
    shared = Shared(room=0)
    shared.monitor.room = 0
    shared.type(b"m" * (MAX_WAITING - 1) + b"\x01c" + b"n" * (2 * MAX_WAITING) + b"\x01c")
    save(shared.mux.save_state())
    shared.monitor.room = 1 << 20
    shared.monitor.share.accept_input()
    shared.type(b"")
    assert shared.monitor.got == b"n" * (2 * MAX_WAITING)
    assert shared.mux.focused is shared.serial.share


def test_backend_events_reach_all(shared) -> None:
    shared.stream.input = None
    shared.stream.loop.ready_in(shared.stream)
    assert (shared.serial.events, shared.monitor.events) == (["closed"], ["closed"])
    assert not shared.monitor.share.connected


def test_more_front_ends_than_the_limit_are_refused(shared) -> None:
    for _ in range(MAX_SHARES - 2):
        shared.mux.share("serial")
    with pytest.raises(ConfigError, match="has 8 front ends"):
        shared.mux.share("serial")


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from([b"a", b"\x01", b"c", b"\x01c", b"x" * 9])),
    st.integers(0, 50),
    st.integers(0, 30),
)
def test_update_at_any_byte_changes_nothing(parts, at, room) -> None:
    data = b"".join(parts)
    plain = Shared(room)
    plain.type(data)
    before, after = Shared(room), Shared(0)
    before.type(data[:at])
    after.serial.room = before.serial.room
    for old, new in zip(before.mux.parts(), after.mux.parts(), strict=True):
        new.load_state(old.save_state())
    after.type(data[at:])
    assert before.serial.got + after.serial.got == plain.serial.got
    assert before.monitor.got + after.monitor.got == plain.monitor.got
    assert (after.mux.focused is after.serial.share) == (plain.mux.focused is plain.serial.share)


def test_state_that_arrives_before_the_front_ends_is_given_to_them(shared) -> None:
    shared.serial.room = 0
    shared.type(b"to serial")
    shared.monitor.share.write(b"from monitor")
    stream = FakeStream(FakeLoop())
    mux = MuxChardev(stream, stream.loop)
    mux.load_state(shared.mux.save_state())
    assert mux.save_state() == shared.mux.save_state()
    serial = FrontEnd(mux.share("serial"))
    assert serial.got == b"to serial"
    monitor = mux.share("monitor")
    assert monitor.pending() == len(b"from monitor")


def test_state_with_a_focus_that_no_front_end_has_is_harmless(shared) -> None:
    shared.mux.load_state(MuxState(focus=9))
    shared.type(b"x\x01cy")
    assert (shared.serial.got, shared.monitor.got) == (b"y", b"x")
