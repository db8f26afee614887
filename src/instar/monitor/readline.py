"""Line editing on a byte stream, without I/O: keys in, echo and finished lines out.

Keys: arrows, Home, End, Delete, Backspace, Tab; Ctrl-A B C D E F H K N P U W; Alt-B D F.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from instar.monitor.state import MAX_HISTORY, MAX_LINE

if TYPE_CHECKING:
    from collections.abc import Callable

    Completer = Callable[[str], tuple[str, list[str]]]

_MAX_KEY: Final = 8  # bytes of an escape sequence; longer ones are not keys
_SEQUENCES: Final = {
    b"[A": "up", b"[B": "down", b"[C": "right", b"[D": "left", b"[H": "home", b"[F": "end",
    b"OA": "up", b"OB": "down", b"OC": "right", b"OD": "left", b"OH": "home", b"OF": "end",
    b"[1~": "home", b"[3~": "delete", b"[4~": "end", b"[7~": "home", b"[8~": "end",
    b"[1;5C": "word_right", b"[1;5D": "word_left",
    b"b": "word_left", b"f": "word_right", b"d": "kill_word_right",
}  # fmt: skip
_CONTROLS: Final = {
    0x01: "home", 0x02: "left", 0x03: "cancel", 0x04: "delete", 0x05: "end", 0x06: "right",
    0x08: "backspace", 0x09: "complete", 0x0A: "enter", 0x0B: "kill_right", 0x0D: "enter",
    0x0C: "redraw", 0x0E: "down", 0x10: "up", 0x15: "kill_left", 0x17: "kill_word_left",
    0x7F: "backspace",
}  # fmt: skip


class LineEditor:
    """One line being edited, and those before it.

    Args:
        prompt: Shown before the line.
        complete: Given the text before the cursor, returns the part to complete and what it could become.

    Attributes:
        echo: What to show, to be taken with :meth:`take_echo`.
        history: Earlier lines, oldest first.
    """

    def __init__(self, prompt: str, complete: Completer) -> None:
        self.prompt = prompt
        self.line = ""
        self.cursor = 0  # characters
        self.keys = bytearray()  # of a key whose bytes are not complete
        self.history: list[str] = []
        self._complete = complete
        self._echo: list[str] = []
        self._browsing = 0  # lines back in the history; 0 is the line being edited
        self._draft = ""
        self._after_cr = False
        self._completed_once = False

    def take_echo(self) -> bytes:
        """Return what the terminal must show since the last call."""
        data = "".join(self._echo).encode()
        self._echo.clear()
        return data

    def show_prompt(self) -> None:
        """Show the prompt and the line so far."""
        back = len(self.line) - self.cursor
        self._echo.append(f"{self.prompt}{self.line}{_left(back)}")

    def feed(self, byte: int) -> str | None:
        """Handle one byte; returns the line when it was finished (Enter)."""
        after_cr, self._after_cr = self._after_cr, byte == 0x0D
        if after_cr and byte == 0x0A:
            return None  # a client that ends lines with CR LF means one Enter
        key = self._key(byte)
        if key == "enter":
            return self._enter()
        if key is not None:
            again = key == "complete" and self._completed_once
            self._completed_once = key == "complete"
            if key == "complete":
                self._tab(again=again)
            elif len(key) == 1:
                self._insert(key)
            else:
                self._actions[key](self)
        return None

    def reset(self) -> None:
        """Forget the line and keys being entered; history stays."""
        self.line, self.cursor, self._browsing = "", 0, 0
        self.keys.clear()

    # ------------------------------------------------------------ keys

    def _key(self, byte: int) -> str | None:
        """Return a character or an action's name once its bytes are complete."""
        if self.keys or byte == 0x1B:
            return self._multibyte(byte)
        if byte in _CONTROLS:
            return _CONTROLS[byte]
        if byte >= 0xC0:
            self.keys.append(byte)
            return None
        return chr(byte) if 0x20 <= byte < 0x7F else None

    def _multibyte(self, byte: int) -> str | None:
        self.keys.append(byte)
        if self.keys[0] != 0x1B:
            return self._utf8()
        body = bytes(self.keys[1:])
        done = len(body) == 1 and body not in {b"[", b"O"}
        done = done or (len(body) > 1 and 0x40 <= body[-1] <= 0x7E) or len(body) > _MAX_KEY
        if not done:
            return None
        self.keys.clear()
        return _SEQUENCES.get(body)

    def _utf8(self) -> str | None:
        try:
            char = self.keys.decode()
        except UnicodeDecodeError as e:
            if e.reason != "unexpected end of data":
                self.keys.clear()
            return None
        self.keys.clear()
        return char if char.isprintable() else None

    # ------------------------------------------------------------ actions

    def _enter(self) -> str:
        self._echo.append("\r\n")
        line = self.line
        self.reset()
        if line.strip() and (not self.history or self.history[-1] != line):
            self.history.append(line)
            del self.history[:-MAX_HISTORY]
        return line

    def _insert(self, text: str) -> None:
        if len(self.line) + len(text) > MAX_LINE:
            self._echo.append("\a")
            return
        self._replace(self.cursor, self.cursor, text)

    def _replace(self, start: int, end: int, text: str) -> None:
        """Put ``text`` for characters ``start`` to ``end``, show it, and go behind it."""
        tail = self.line[end:]
        self._echo.append(_left(self.cursor - start) + self.line[self.cursor : start] + text)
        if end > start or tail:
            self._echo.append(f"{tail}\x1b[K{_left(len(tail))}")
        self.line = self.line[:start] + text + tail
        self.cursor = start + len(text)

    def _move(self, to: int) -> None:
        to = min(max(to, 0), len(self.line))
        self._echo.append(_left(self.cursor - to) + self.line[self.cursor : to])
        self.cursor = to

    def _word_left(self) -> int:
        before = self.line[: self.cursor].rstrip()
        return before.rfind(" ") + 1

    def _word_right(self) -> int:
        rest = self.line[self.cursor :]
        skipped = len(rest) - len(rest.lstrip())
        space = rest.find(" ", skipped)
        return len(self.line) if space < 0 else self.cursor + space

    def _browse(self, step: int) -> None:
        to = self._browsing + step
        if not 0 <= to <= len(self.history):
            return
        if self._browsing == 0:
            self._draft = self.line
        self._browsing = to
        text = self.history[-to] if to else self._draft
        self._replace(0, len(self.line), text)

    def _cancel(self) -> None:
        self.reset()
        self._echo.append("\r\n")
        self.show_prompt()

    def _redraw(self) -> None:
        self._echo.append("\x1b[H\x1b[2J")
        self.show_prompt()

    def _delete(self) -> None:
        if self.cursor < len(self.line):
            self._replace(self.cursor, self.cursor + 1, "")

    def _backspace(self) -> None:
        if self.cursor:
            self._replace(self.cursor - 1, self.cursor, "")

    def _tab(self, *, again: bool) -> None:
        part, choices = self._complete(self.line[: self.cursor])
        if not choices:
            return
        common = _common(choices)
        text = common + " " if len(choices) == 1 else common
        if len(text) > len(part):
            self._insert(text[len(part) :])
        elif len(choices) > 1 and again:
            self._echo.append("\r\n" + "".join(f"{choice}\r\n" for choice in choices))
            self.show_prompt()

    def _to_start(self) -> None:
        self._move(0)

    def _to_end(self) -> None:
        self._move(len(self.line))

    def _to_left(self) -> None:
        self._move(self.cursor - 1)

    def _to_right(self) -> None:
        self._move(self.cursor + 1)

    def _to_word_left(self) -> None:
        self._move(self._word_left())

    def _to_word_right(self) -> None:
        self._move(self._word_right())

    def _kill_left(self) -> None:
        self._replace(0, self.cursor, "")

    def _kill_right(self) -> None:
        self._replace(self.cursor, len(self.line), "")

    def _kill_word_left(self) -> None:
        self._replace(self._word_left(), self.cursor, "")

    def _kill_word_right(self) -> None:
        self._replace(self.cursor, self._word_right(), "")

    def _older(self) -> None:
        self._browse(1)

    def _newer(self) -> None:
        self._browse(-1)

    _actions: Final[dict[str, Callable[[LineEditor], None]]] = {
        "backspace": _backspace, "cancel": _cancel, "delete": _delete, "down": _newer, "end": _to_end,
        "home": _to_start, "kill_left": _kill_left, "kill_right": _kill_right, "kill_word_left": _kill_word_left,
        "kill_word_right": _kill_word_right, "left": _to_left, "redraw": _redraw, "right": _to_right, "up": _older,
        "word_left": _to_word_left, "word_right": _to_word_right,
    }  # fmt: skip


def _left(columns: int) -> str:
    """Return what moves the terminal's cursor left."""
    if columns <= 0:
        return ""
    return "\b" * columns if columns < 4 else f"\x1b[{columns}D"


def _common(choices: list[str]) -> str:
    """Return the longest beginning that all choices share."""
    low, high = min(choices), max(choices)
    for n, char in enumerate(low):
        if char != high[n]:
            return low[:n]
    return low
