"""The log: levels, the ring of the pause, and what guests cannot do to it."""

from __future__ import annotations

import os

import pytest

from instar.log import BURST, LINE, REFILL_NS, RING, SITES, Log, _to_stderr


class Sink:
    """A log whose lines are kept and whose clock stands."""

    def __init__(self) -> None:
        self.text = ""
        self.ns = 0
        self.full = False
        self.log = Log(self.write, lambda: self.ns)

    def write(self, line: str) -> bool:
        self.text += "" if self.full else line
        return not self.full


@pytest.fixture
def sink() -> Sink:
    return Sink()


def test_say_above_the_level_is_dropped(sink):
    sink.log.say("info", "no")
    sink.log.say("warning", "yes")
    assert sink.text == "instar-system: warning: yes\n"


def test_set_level_debug_says_all(sink):
    sink.log.set_level("debug")
    sink.log.say("debug", "yes")
    assert sink.text == "instar-system: debug: yes\n"


def test_say_shows_control_characters_and_cuts_long_lines(sink):
    sink.log.say("error", "a\x1b[2J\nb" + "c" * 5000)
    assert sink.text.startswith("instar-system: error: a\\x1b[2J\\nbccc")
    assert len(sink.text) < LINE + 50


def test_hold_writes_nothing_until_release(sink):
    sink.log.hold()
    sink.log.say("error", "one")
    sink.log.say("error", "two")
    assert sink.text == ""
    sink.log.release()
    assert sink.text == "instar-system: error: one\ninstar-system: error: two\n"


def test_release_with_nothing_held_writes_nothing(sink):
    sink.log.release()
    assert sink.text == ""


def test_hold_keeps_a_limited_number_and_counts_the_rest(sink):
    sink.log.hold()
    for _ in range(RING + 3):
        sink.log.say("error", "x")
    sink.log.release()
    assert sink.text.count(": x\n") == RING
    assert sink.text.endswith(f"3 lines of the pause did not fit into {RING} and are lost\n")


def test_guest_flood_is_limited_and_counted(sink):
    for _ in range(BURST + 7):
        sink.log.guest("disk", "bad")
    assert sink.text.count("disk: guest: bad") == BURST
    sink.ns = REFILL_NS
    sink.log.guest("disk", "bad")
    assert sink.text.endswith("bad (7 more before it)\n")


def test_guest_sites_have_their_own_allowance(sink):
    for _ in range(BURST + 1):
        sink.log.guest("one", "bad")
    sink.log.guest("two", "bad")
    assert "two: guest: bad" in sink.text


def test_guest_sites_are_limited_in_number(sink):
    for n in range(SITES * 2 + 1):
        sink.log.guest(f"site {n}", "bad")
    assert sink.text.count("\n") == SITES * 2 + 1


def test_lines_that_cannot_be_written_are_counted_and_told_later(sink):
    sink.full = True
    sink.log.say("error", "one")
    sink.log.say("error", "two")
    sink.full = False
    sink.log.say("error", "three")
    sink.log.say("error", "four")
    assert sink.text.splitlines() == [
        "instar-system: warning: 2 lines could not be written and are lost",
        "instar-system: error: three",
        "instar-system: error: four",
    ]


def test_standard_error_that_is_full_or_closed_does_not_block():
    saved, (reader, writer) = os.dup(2), os.pipe()
    os.dup2(writer, 2)
    try:
        written = 0
        while _to_stderr("x" * 999 + "\n"):
            written += 1
        os.close(2)
        closed = _to_stderr("nobody")
    finally:
        os.dup2(saved, 2)
    assert written > 0
    assert not closed
    for fd in (saved, reader, writer):
        os.close(fd)


def test_nothing_is_said_of_a_guest_that_runs_elsewhere(sink):
    sink.log.ignore_guest()
    sink.log.guest("blk0", "nonsense")
    sink.log.say("warning", "said")
    assert sink.text == "instar-system: warning: said\n"
