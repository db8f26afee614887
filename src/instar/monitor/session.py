"""One HMP session, without I/O: keys in; echo, results and prompts out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from instar import log
from instar._version import VERSION
from instar.monitor import hmp
from instar.monitor.commands import WAITS
from instar.monitor.completion import complete
from instar.monitor.qmp import error
from instar.monitor.readline import LineEditor
from instar.monitor.state import MAX_HISTORY, MAX_TYPED, MonitorState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from instar.monitor.context import Context

_KEPT_LINES: Final = MAX_HISTORY - 1  # the newlines between them need room too
PROMPT: Final = "(instar) "
BANNER: Final = f"Instar {VERSION} monitor - type 'help' for more information\n"


class HmpSession:
    """What one person sees and has typed.

    Args:
        context: What commands act on.
        state: Of the session before an update; None: a new one.
    """

    def __init__(self, context: Context, *, state: MonitorState | None = None) -> None:
        self._context = context
        was = state or MonitorState(kind="hmp")
        self._editor = LineEditor(PROMPT, lambda text: complete(context, text))
        self._editor.line = was.line
        self._editor.cursor = min(was.cursor, len(was.line))
        self._editor.keys += was.keys
        self._editor.history = [line for line in was.history.split("\n") if line]
        self._typed = bytearray(was.typed)
        self._waits_for = was.waits_for

    @property
    def busy(self) -> bool:
        """Whether the prompt waits for something; :meth:`poll` looks whether it has come."""
        return bool(self._waits_for)

    def greeting(self) -> bytes:
        """Begin a session with a new client and return banner and prompt; history stays."""
        self._editor.reset()
        self._typed.clear()
        self._waits_for = ""
        return _terminal(BANNER) + self._prompt()

    def redraw(self) -> bytes:
        """Return what shows the line again, on a new one."""
        return b"\r\n" + (b"" if self.busy else self._prompt())

    def save(self) -> MonitorState:
        """Return what must cross an update."""
        return MonitorState(
            kind="hmp",
            line=self._editor.line,
            cursor=self._editor.cursor,
            keys=bytes(self._editor.keys),
            history="\n".join(self._editor.history[-_KEPT_LINES:]),
            typed=bytes(self._typed),
            waits_for=self._waits_for,
        )

    def feed(self, data: bytes) -> None:
        """Add keys."""
        self._typed += data

    def room(self) -> int:
        """Return how many keys may be fed now."""
        return 0 if self.busy else MAX_TYPED - len(self._typed)

    def answer(self) -> bytes | None:
        """Handle keys up to the next command and return what to show; None if there is nothing to do."""
        if self.busy or not self._typed:
            return None
        for used, byte in enumerate(self._typed, 1):
            line = self._editor.feed(byte)
            if line is not None:
                del self._typed[:used]
                return self._editor.take_echo() + self._execute(line)
        self._typed.clear()
        return self._editor.take_echo()

    def poll(self) -> bytes | None:
        """Return result and prompt if what the prompt waited for has come; None otherwise."""
        outcome = WAITS[self._waits_for](self._context) if self._waits_for in WAITS else ""
        if outcome is None:
            return None
        self._waits_for = ""
        return _terminal(outcome) + self._prompt()

    def event(self, name: str, data: Mapping[str, object], time_us: int) -> bytes:
        """Return nothing: people ask."""
        del name, data, time_us
        return b""

    def _execute(self, line: str) -> bytes:
        try:
            text, self._waits_for = hmp.execute(self._context, line)
        except Exception as e:  # a bug in one command must not take the guest down
            text = f"Error: {error(e)['desc']}\n"
            log.error(f"HMP: {text.strip()}")
        silent = self.busy or self._context.machine.ending
        return _terminal(text) + (b"" if silent else self._prompt())

    def _prompt(self) -> bytes:
        self._editor.show_prompt()
        return self._editor.take_echo()


def _terminal(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode(errors="backslashreplace")
