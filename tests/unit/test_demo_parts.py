"""What the demo makes of a guest's console and of its answers."""

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from demo_lib.errors import DemoError
from demo_lib.facts import Summary
from demo_lib.guest import Console

GOOD = Summary(
    updates=2,
    connections=1,
    ticks=9,
    ticks_missing=0,
    longest_silence_ms=300,
    checksums=3,
    checksums_wrong=0,
    shell_kept=True,
    complaints=[],
    exit_status=0,
    boot_s=4.0,
    total_s=15.0,
)


class Seen:
    """A console, and what it reported."""

    def __init__(self) -> None:
        self.lines = []
        self.numbers = []
        self.console = Console(self.lines.append, self.numbers.append)


@pytest.fixture
def seen():
    return Seen()


def test_console_counts_the_ticks_and_keeps_them_out_of_the_text(seen):
    seen.console.take(b"one\r\ntick 1\r\ntick 2\r\ntwo\r\n")
    assert seen.numbers == [1, 2]
    assert seen.console.text == "one\ntwo\n"
    assert seen.lines == ["one", "two"]


def test_console_tick_behind_a_prompt_leaves_the_prompt(seen):
    seen.console.take(b"guest:/# tick 1\r\n")
    assert seen.numbers == [1]
    assert seen.console.prompt == "guest:/# "


def test_console_that_steers_the_terminal_is_only_text(seen):
    seen.console.take(b"\x1b[2Ja\x1b]0;title\x07b\x07\x9bc\r\n")
    assert seen.lines == ["a0;titleb\ufffdc"]


def test_console_hidden_reports_no_lines_but_keeps_them(seen):
    seen.console.hidden = True
    seen.console.take(b"secret\n")
    assert (seen.lines, seen.console.text) == ([], "secret\n")


def test_console_of_a_guest_that_floods_ends_the_demo(seen):
    with pytest.raises(DemoError, match="more than 4 MiB"):
        seen.console.take(bytes(5 << 20))


def test_missing_numbers_and_doubled_ones_are_counted(seen):
    seen.console.take(b"tick 1\ntick 2\ntick 4\ntick 4\n")
    assert seen.console.missing() == 1


def test_nothing_printed_has_no_silence(seen):
    assert (seen.console.missing(), seen.console.longest_silence_ms()) == (0, 0.0)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 40)))
def test_console_cut_anywhere_says_the_same(cuts):
    data = b"boot\r\n" + b"".join(b"tick %d\r\n" % n for n in range(1, 9)) + b"guest:/# \x1b[6n"
    whole, pieces = Seen(), Seen()
    whole.console.take(data)
    at = 0
    for cut in cuts:
        pieces.console.take(data[at : at + cut])
        at += cut
    pieces.console.take(data[at:])
    assert pieces.console.text == whole.console.text
    assert pieces.console.prompt == whole.console.prompt == "guest:/# "
    assert pieces.numbers == whole.numbers == list(range(1, 9))


def test_summary_of_a_good_run_has_no_faults():
    assert GOOD.faults() == []
    assert GOOD.record()["ok"]


@pytest.mark.parametrize(
    "change",
    [
        {"ticks_missing": 1},
        {"checksums": 0},
        {"checksums_wrong": 1},
        {"shell_kept": False},
        {"complaints": ["rcu: stall"]},
        {"exit_status": 1},
    ],
)
def test_summary_of_a_bad_run_says_so(change):
    bad = GOOD._replace(**change)
    assert len(bad.faults()) == 1
    assert not bad.record()["ok"]
