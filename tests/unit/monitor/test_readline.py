"""Line editing: what the terminal shows is always the prompt and the line, with the cursor where it is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.monitor.readline import LineEditor
from instar.monitor.state import MAX_HISTORY, MAX_LINE

PROMPT = "(instar) "
WORDS = ["info", "infra", "migrate", "quit"]
SEQUENCE = re.compile(r"\x1b\[(\d*)([A-Za-z])")


class Terminal:
    """As much of a terminal as an editor of one (long) line needs."""

    def __init__(self):
        self.row = ""
        self.column = 0

    def show(self, text):
        at = 0
        while at < len(text):
            match = SEQUENCE.match(text, at)
            if match:
                self.control(match[2], int(match[1] or 1))
                at = match.end()
            else:
                self.put(text[at])
                at += 1

    def control(self, letter, count):
        if letter == "D":
            self.column = max(0, self.column - count)
        elif letter == "K":
            self.row = self.row[: self.column]
        elif letter in "HJ":
            self.row, self.column = "", 0
        else:
            raise AssertionError(letter)

    def put(self, char):
        if char == "\b":
            self.column = max(0, self.column - 1)
        elif char == "\n":
            self.row, self.column = "", 0
        elif char not in "\r\a":
            self.row = self.row[: self.column] + char + self.row[self.column + 1 :]
            self.column += 1


def complete(text):
    word = text.rpartition(" ")[2]
    return word, [w for w in WORDS if w.startswith(word)]


def typed(data, editor=None):
    """Feed bytes; returns the editor, finished lines and the terminal."""
    editor = editor or LineEditor(PROMPT, complete)
    terminal, lines = Terminal(), []
    editor.show_prompt()
    for byte in data:
        line = editor.feed(byte)
        if line is not None:
            lines.append(line)
            editor.show_prompt()
    terminal.show(editor.take_echo().decode())
    return editor, lines, terminal


KEYS = [
    b"\x01", b"\x02", b"\x03", b"\x04", b"\x05", b"\x06", b"\x08", b"\t", b"\t\t", b"\x0b", b"\x0c", b"\r", b"\n",
    b"\r\n", b"\x0e", b"\x10", b"\x15", b"\x17", b"\x7f", b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D", b"\x1b[H",
    b"\x1b[F", b"\x1b[3~", b"\x1bOH", b"\x1bb", b"\x1bf", b"\x1bd", b"\x1b[1;5D", "ü".encode(), b"\xff", b"in", b" ",
    b"migrate file:x",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(KEYS), max_size=25))
def test_keys_in_any_order_show_the_line_as_it_is(keys) -> None:
    editor, _, terminal = typed(b"".join(keys))
    assert terminal.row == PROMPT + editor.line
    assert terminal.column == len(PROMPT) + editor.cursor


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_bytes_of_any_kind_never_break_the_editor(data) -> None:
    editor, lines, _ = typed(data)
    assert 0 <= editor.cursor <= len(editor.line)
    assert all(line.isprintable() for line in [*lines, editor.line])


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (b"stop\r", "stop"),
        (b"stXop\x02\x02\x7f\r", "stop"),
        (b"top\x01s\r", "stop"),
        (b"stopXY\x02\x02\x0b\r", "stop"),
        (b"XYstop\x1b[D\x1b[D\x1b[D\x1b[D\x15\r", "stop"),
        (b"info status\x17\x17quit\r", "quit"),
        (b"Xstop\x1b[H\x1b[3~\r", "stop"),
        (b"info status\x1bb\x1bbfoo \r", "foo info status"),
        (b"info status\x01\x1bd\r", " status"),
        (b"xyz\x03stop\r", "stop"),
        ("größe\x7f\r".encode(), "größ"),
    ],
)
def test_keys_edit_the_line(keys, line) -> None:
    assert typed(keys)[1] == [line]


def test_carriage_return_and_newline_are_one_enter() -> None:
    assert typed(b"a\r\nb\nc\r")[1] == ["a", "b", "c"]


def test_history_gives_earlier_lines_and_the_draft_back() -> None:
    editor, _, _ = typed(b"one\rtwo\rtwo\rdra\x1b[A")
    assert editor.line == "two"
    typed(b"\x1b[A\x1b[A", editor)
    assert editor.line == "one"
    typed(b"\x1b[B\x1b[B", editor)
    assert editor.line == "dra"
    assert editor.history == ["one", "two"]


def test_history_has_a_limit() -> None:
    editor, _, _ = typed(b"".join(b"%d\r" % n for n in range(MAX_HISTORY + 9)))
    assert len(editor.history) == MAX_HISTORY
    assert editor.history[-1] == str(MAX_HISTORY + 8)


def test_line_has_a_limit_and_rings_the_bell() -> None:
    editor, _, _ = typed(b"x" * (MAX_LINE + 1))
    assert len(editor.line) == MAX_LINE


def test_tab_with_one_choice_completes_the_word() -> None:
    assert typed(b"mig\t")[0].line == "migrate "


def test_tab_with_several_choices_completes_what_they_share_and_then_lists_them() -> None:
    editor, _, _ = typed(b"i\t")
    assert editor.line == "inf"
    editor.feed(0x09)
    assert editor.take_echo() == b"\r\ninfo\r\ninfra\r\n(instar) inf"
