"""Integer expressions of the assembler: numbers, characters, symbols, operators, ``%hi(...)``, ``%lo(...)``."""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Final

from instar.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


class AssemblyError(ConfigError):
    """The assembler cannot make code of its source; there is no program."""

    code = "bad-assembly"


_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>0[xX][0-9a-fA-F]+|0[bB][01]+|\d+(?![bf\d]))|(?P<char>'(?:\\.|[^'\\])')"
    r"|(?P<name>\d+[bf]|%?[A-Za-z_.$][\w.$]*)|(?P<op><<|>>|[-+*/%&|^~()]))"
)
ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\", '"': '"', "'": "'"}
_MAX_BITS: Final = 128  # a shift cannot make a number that fills memory
_MAX_DEPTH: Final = 64  # nested parentheses: far below Python's recursion limit


def _divide(a: int, b: int) -> int:
    """Divide as C does, towards zero."""
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _shift_left(a: int, b: int) -> int:
    if b > _MAX_BITS:
        raise AssemblyError(f"shift by {b} bits, limit {_MAX_BITS}")
    return a << b


_BINARY: Final[dict[str, tuple[int, Callable[[int, int], int]]]] = {
    "|": (1, lambda a, b: a | b),
    "^": (2, lambda a, b: a ^ b),
    "&": (3, lambda a, b: a & b),
    "<<": (4, _shift_left),
    ">>": (4, lambda a, b: a >> b),
    "+": (5, lambda a, b: a + b),
    "-": (5, lambda a, b: a - b),
    "*": (6, lambda a, b: a * b),
    "/": (6, _divide),
    "%": (6, lambda a, b: a - b * _divide(a, b)),
}


def high_part(value: int) -> int:
    """Return what lui or auipc adds so that a signed 12-bit low part completes the 32-bit value."""
    return ((value + 0x800) >> 12) & 0xFFFFF


def low_part(value: int) -> int:
    """Return the signed low 12 bits."""
    return ((value & 0xFFF) ^ 0x800) - 0x800


_FUNCTIONS: Final[dict[str, Callable[[int], int]]] = {"%hi": high_part, "%lo": low_part}
_UNARY: Final[dict[str, Callable[[int], int]]] = {
    "-": operator.neg,
    "+": operator.pos,
    "~": operator.invert,
}


class _Parser:
    """Precedence climbing over the tokens of one expression."""

    __slots__ = ("at", "depth", "lookup", "text", "tokens")

    def __init__(self, text: str, lookup: Callable[[str], int]) -> None:
        self.text = text
        self.lookup = lookup
        self.tokens = self._split(text)
        self.at = 0
        self.depth = 0

    def _split(self, text: str) -> list[tuple[str, str]]:
        tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text.rstrip()):
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                raise AssemblyError(f"expression {text!r} is not understood at {text[at:]!r}")
            tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()
        return tokens

    def _next(self) -> tuple[str, str]:
        if self.at == len(self.tokens):
            raise AssemblyError(f"expression {self.text!r} ends too early")
        self.at += 1
        return self.tokens[self.at - 1]

    def _operator(self) -> str:
        kind, text = self.tokens[self.at] if self.at < len(self.tokens) else ("", "")
        return text if kind == "op" and text in _BINARY else ""

    def whole(self) -> int:
        """Return the value of the whole text."""
        value = self.binary(0)
        if self.at != len(self.tokens):
            raise AssemblyError(
                f"expression {self.text!r}: {self.tokens[self.at][1]!r} is too much"
            )
        return value

    def binary(self, lowest: int) -> int:
        """Parse operators that bind tighter than ``lowest``."""
        value = self.unary()
        while (sign := self._operator()) and _BINARY[sign][0] > lowest:
            self.at += 1
            level, function = _BINARY[sign]
            right = self.binary(level)
            try:
                value = function(value, right)
            except (ZeroDivisionError, ValueError) as exc:
                raise AssemblyError(f"expression {self.text!r}: {exc}") from exc
        return value

    def unary(self) -> int:
        """Parse a number, a name, a call, or something in parentheses."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise AssemblyError(f"expression nests deeper than {_MAX_DEPTH}")
        kind, text = self._next()
        if kind == "number":
            value = int(text, 0) if text[:2].lower() in ("0x", "0b") else int(text)
        elif kind == "char":
            value = ord(ESCAPES.get(text[2], text[2]) if text[1] == "\\" else text[1])
        elif text in _FUNCTIONS:
            value = _FUNCTIONS[text](self.unary())
        elif kind == "name":
            value = self.lookup(text)
        elif text in _UNARY:
            value = _UNARY[text](self.unary())
        elif text == "(":
            value = self.binary(0)
            if self._next() != ("op", ")"):
                raise AssemblyError(f"expression {self.text!r}: ')' is missing")
        else:
            raise AssemblyError(f"expression {self.text!r} is not understood at {text!r}")
        self.depth -= 1
        return value


def evaluate(text: str, lookup: Callable[[str], int]) -> int:
    """Return the value of an expression.

    Args:
        text: The expression; operators and their order as in C.
        lookup: Gives the value of a name (a symbol, ``.``, ``1b``) or raises AssemblyError.

    Returns:
        An integer of any size; the caller checks that it fits.

    Raises:
        AssemblyError: not an expression, or a name is unknown.

    Source: own.
    """
    return _Parser(text, lookup).whole()
