"""Split a byte stream into JSON texts; clients need not send newlines between them.

Source: own; that requests are a stream and not lines was learnt from the client ``qemu.qmp``.
"""

from __future__ import annotations

import json
import re
from typing import Final

from instar.errors import CommandError

MAX_REQUEST: Final = 1 << 20  # bytes of one request; a client that needs more is broken or hostile
MAX_DEPTH: Final = 100  # nested objects and lists; Python's parser recurses

_OUTSIDE: Final = re.compile(rb'[][{}"\xff]')
_INSIDE: Final = re.compile(rb'["\\\x00-\x1f\xff]')
_TOP: Final = re.compile(rb"[^ \t\r\n\xff]")
_LINE: Final = re.compile(rb"[\n\xff]")
_LINE_OR_VALUE: Final = re.compile(rb"[\n\xff{[]")
_RESET: Final = 0xFF  # never in UTF-8: clients send it to begin anew
_CLOSES: Final = {0x5D: 0x5B, 0x7D: 0x7B}


class JsonSplitter:
    """Feed bytes, take whole top-level objects one by one.

    After an error, input is thrown away up to the next newline, 0xFF, or beginning of an object or list
    (after one that was too long or too deep: up to the next newline or 0xFF).
    """

    __slots__ = ("_buf", "_limit", "_quoted", "_scan", "_skip_to", "_stack")

    def __init__(
        self,
        pending: bytes = b"",
        *,
        skipping: bool = False,
        until_value: bool = False,
        limit: int = MAX_REQUEST,
    ) -> None:
        self._limit = limit
        self._buf: bytearray = bytearray(pending)
        self._scan: int = 0  # bytes of the buffer that were looked at
        self._stack: bytearray = bytearray()  # the brackets that are open
        self._quoted = False
        self._skip_to: re.Pattern[bytes] | None = None
        if skipping:
            self._skip_to = _LINE_OR_VALUE if until_value else _LINE

    @property
    def pending(self) -> bytes:
        """Bytes not taken yet."""
        return bytes(self._buf)

    @property
    def skipping(self) -> bool:
        """Whether input is being thrown away."""
        return self._skip_to is not None

    @property
    def until_value(self) -> bool:
        """Whether that ends with the beginning of a value, too."""
        return self._skip_to is _LINE_OR_VALUE

    def __len__(self) -> int:
        return len(self._buf)

    def feed(self, data: bytes) -> None:
        """Add input."""
        self._buf += data

    def next(self) -> bytes | None:
        """Return the next complete object or list, None if there is none yet.

        Raises:
            CommandError: The input is not JSON, too long or too deep; the rest of it is skipped.
        """
        while True:
            if not self._stack and not self._find_start():
                return None
            found = (_INSIDE if self._quoted else _OUTSIDE).search(self._buf, self._scan)
            if (found.start() if found else len(self._buf)) >= self._limit:
                raise self._fail(self._limit, _LINE, "JSON token size limit exceeded")
            if found is None:
                self._scan = len(self._buf)
                return None
            self._scan = found.end()
            char = self._buf[found.start()]
            if self._quoted:
                if not self._in_text(char, found.start()):
                    return None
            elif char == 0x22:
                self._quoted = True
            elif char in b"{[":
                self._open(char)
            elif self._close(char, found.start()):
                return self._take()

    def _find_start(self) -> bool:
        """Go to the beginning of a value; False if there is none yet."""
        if self._skip_to is not None:
            end = self._skip_to.search(self._buf)
            if end is None:
                self._buf.clear()
                return False
            del self._buf[: end.start()]
            self._skip_to = None
        start = _TOP.search(self._buf)
        del self._buf[: start.start() if start else len(self._buf)]
        self._scan = 0
        if start is None:
            return False
        if self._buf[0] not in b"{[":
            shown = bytes(self._buf[:1]).decode("latin-1")
            raise self._fail(1, _LINE_OR_VALUE, f"JSON parse error, stray {shown!r}")
        self._stack.append(self._buf[0])
        self._scan = 1
        return True

    def _in_text(self, char: int, at: int) -> bool:
        """Handle what matters inside a string; False if more input is needed."""
        if char == 0x22:
            self._quoted = False
        elif char == 0x5C:
            if self._scan == len(self._buf):
                self._scan = at
                return False
            self._scan += self._buf[self._scan] != _RESET
        else:
            raise self._fail(at, _LINE_OR_VALUE, "JSON parse error, control character in string")
        return True

    def _open(self, char: int) -> None:
        if len(self._stack) == MAX_DEPTH:
            raise self._fail(self._scan, _LINE, "JSON nesting depth limit exceeded")
        self._stack.append(char)

    def _close(self, char: int, at: int) -> bool:
        """Close a bracket; True if the value is complete."""
        if char == _RESET:
            raise self._fail(at, _LINE, "JSON parse error, 0xff in a request")
        if self._stack.pop() != _CLOSES[char]:
            raise self._fail(self._scan, _LINE_OR_VALUE, "JSON parse error, unbalanced brackets")
        return not self._stack

    def _take(self) -> bytes:
        whole = bytes(self._buf[: self._scan])
        del self._buf[: self._scan]
        self._scan = 0
        return whole

    def _fail(self, used: int, skip_to: re.Pattern[bytes], text: str) -> CommandError:
        del self._buf[:used]
        self._stack.clear()
        self._quoted = False
        self._scan = 0
        self._skip_to = skip_to
        return CommandError(text)


def parse(text: bytes) -> object:
    """Return the value of one JSON text.

    Raises:
        CommandError: It is not JSON, not UTF-8, repeats a key, or has a number that is none.
    """
    try:
        return json.loads(
            text.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant
        )
    except json.JSONDecodeError as e:
        raise CommandError(f"JSON parse error, {e.msg} at character {e.pos}") from e
    except UnicodeDecodeError as e:
        raise CommandError("JSON parse error, invalid UTF-8 sequence in string") from e
    except ValueError as e:  # our own, and numbers with thousands of digits
        raise CommandError(f"JSON parse error, {e}") from e


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("duplicate key")
    return made


def _no_constant(name: str) -> object:
    raise ValueError(f"invalid keyword '{name}'")
