"""One HMP line, without I/O: words, options and expressions to a command's arguments, results to text.

Source: own; the grammar and the texts follow QEMU's human monitor.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from instar.cpr.errors import CprError
from instar.errors import BadArgumentError, CommandError, InstarError
from instar.monitor.command import (
    HMP_COMMANDS,
    Command,
    Member,
    UnitFormat,
    Wait,
    check_state,
    convert,
)
from instar.sandbox.notice import explained

if TYPE_CHECKING:
    from collections.abc import Mapping

    from instar.monitor.context import Context

_FORMAT: Final = re.compile(r"/(\d*)([a-z]*)(?=\s|$)")
_MAX_COUNT: Final = (
    65536  # units that one x or xp shows: more is a mistake, and would fill the client's queue
)
_TERM: Final = re.compile(r"\s*([-+]?)\s*(?:(0[xX][0-9a-fA-F]+|\d+)|\$([A-Za-z_][\w/]*))")
_ESCAPES: Final = {"n": "\n", "r": "\r", "\\": "\\", "'": "'", '"': '"'}


class LineError(BadArgumentError):
    """A line that is not a command; the text stands alone, without "Error:"."""


def execute(context: Context, line: str) -> tuple[str, str]:
    """Run one line; errors are part of the text.

    Returns:
        What to print, and what the prompt has to wait for ("" for nothing).
    """
    try:
        found = parse(context, line)
        if found is None:
            return "", ""
        made, arguments = found
        check_state(made, context.machine.runstate)
        result = made.function(context, **arguments)
        if isinstance(result, Wait):
            return "", result.name
        if made.hmp is not None and made.hmp.render is not None:
            return made.hmp.render(result), ""
        return result if isinstance(result, str) else "", ""
    except LineError as e:
        return f"{e}\n", ""
    except (InstarError, CprError) as e:
        hints = "".join(f"{note}\n" for note in getattr(e, "__notes__", ()))
        return f"Error: {explained(e)}\n{hints}", ""


def parse(context: Context, line: str) -> tuple[Command, Mapping[str, object]] | None:
    """Return the command of ``line`` and its arguments; None for an empty line.

    Raises:
        CommandError: The command is unknown or an argument is wrong; nothing was done.
    """
    made, rest = find(line)
    if made is None:
        return None
    return made, _Reader(context, made, rest).arguments()


def find(line: str) -> tuple[Command | None, str]:
    """Return the command that ``line`` begins with and the rest of the line.

    Raises:
        LineError: There is no such command.
    """
    name, _, rest = line.strip().partition(" ")
    base, slash, form = name.partition("/")
    if slash and base in HMP_COMMANDS:  # x/4xw needs no space
        name, rest = base, f"/{form} {rest}"
    if name == "info" and rest.strip():
        topic, _, rest = rest.strip().partition(" ")
        name = f"info {topic}"
    if not name:
        return None, ""
    if name not in HMP_COMMANDS:
        raise LineError(f"unknown command: '{name[:64]}'")
    return HMP_COMMANDS[name], rest.strip()


def usage(made: Command) -> str:
    """Return how the command is typed: ``migrate [-d] [-r] uri``."""
    assert made.hmp is not None
    return " ".join([made.hmp.name, *(_usage_of(m) for m in made.members)])


def _usage_of(member: Member) -> str:
    if member.arg.flag:
        return f"[-{member.arg.flag}]"
    if member.arg.form == "format":
        return "/fmt"
    return f"[{member.name}]" if member.optional else member.name


class _Reader:
    """Reads a command's arguments off the rest of its line."""

    def __init__(self, context: Context, made: Command, text: str) -> None:
        self._context = context
        self._made = made
        self._text = text

    def arguments(self) -> dict[str, object]:
        """Return all arguments by attribute."""
        self._long_flags()
        flags = {m.arg.flag: m.attribute for m in self._made.members if m.arg.flag}
        values: dict[str, object] = dict.fromkeys(self._flags(flags), True)
        for member in self._made.members:
            if not member.arg.flag:
                self._argument(member, values)
        if self._text:
            self._fail("extraneous characters at the end of line")
        return values

    def _fail(self, why: str) -> None:
        assert self._made.hmp is not None
        name = self._made.hmp.name
        raise LineError(f'{name}: {why}\nTry "help {name}" for more information')

    def _long_flags(self) -> None:
        """Turn leading ``--name`` words into ``-x``."""
        for member in self._made.members:
            if member.arg.flag:
                pattern = rf"^((?:-[A-Za-z]+\s+)*)--{member.name}(?=\s|$)"
                self._text = re.sub(pattern, rf"\g<1>-{member.arg.flag}", self._text)

    def _flags(self, flags: Mapping[str, str]) -> list[str]:
        """Take leading ``-x`` words; only commands that have options look for them."""
        found: list[str] = []
        while flags and (match := re.match(r"-([A-Za-z]+)(?:\s+|$)", self._text)):
            for letter in match[1]:
                if letter not in flags:
                    self._fail(f"unsupported option -{letter}")
                found.append(flags[letter])
            self._text = self._text[match.end() :]
        return found

    def _argument(self, member: Member, values: dict[str, object]) -> None:
        if member.arg.form == "format":
            values[member.attribute] = self._format()
            return
        if not self._text:
            if not member.optional:
                kind = "integer" if member.kind is int else "string"
                self._fail(f"{kind} expected")
            return
        if member.arg.form == "rest":
            values[member.attribute], self._text = self._text, ""
        elif member.kind is int:
            values[member.attribute] = convert(member, self._expression())
        else:
            values[member.attribute] = self._converted(member, self._word())

    def _converted(self, member: Member, word: str) -> object:
        if member.kind is bool:
            if word not in {"on", "off"}:
                raise CommandError(f"Parameter '{member.name}' expects 'on' or 'off'")
            return word == "on"
        return convert(member, word)

    def _word(self) -> str:
        """Take a word, or a quoted text with C escapes."""
        if not self._text.startswith('"'):
            word, _, rest = self._text.partition(" ")
            self._text = rest.lstrip()
            return word
        out: list[str] = []
        at = 1
        while at < len(self._text) and self._text[at] != '"':
            char = self._text[at]
            if char == "\\":
                at += 1
                letter = self._text[at : at + 1]
                if letter not in _ESCAPES:
                    self._fail(f"unsupported escape code: '\\{letter}'")
                char = _ESCAPES[letter]
            out.append(char)
            at += 1
        if at >= len(self._text):
            self._fail("unterminated string")
        self._text = self._text[at + 1 :].lstrip()
        return "".join(out)

    def _format(self) -> UnitFormat:
        if not self._text.startswith("/"):
            return UnitFormat()
        match = _FORMAT.match(self._text)
        if match is None:
            self._fail("invalid format")
            return UnitFormat()
        self._text = self._text[match.end() :].lstrip()
        count = int(match[1][:9] or 1)
        if not 0 < count <= _MAX_COUNT:
            self._fail(f"count {match[1][:20]} is not in the range of 1 to {_MAX_COUNT}")
        letter, size = "x", 0
        for char in match[2]:
            if char in "xduoci":
                letter = char
            elif char in "bhwg":
                size = {"b": 1, "h": 2, "w": 4, "g": 8}[char]
            else:
                self._fail(f"invalid char in format: '{char}'")
        return UnitFormat(count, letter, size)

    def _expression(self) -> int:
        """Take a sum of numbers and ``$registers`` of the first hart."""
        total, first = 0, True
        while match := _TERM.match(self._text):
            if not first and not match[1]:
                break
            value = (
                int(match[2][:64], 0 if match[2][:2].lower() == "0x" else 10)
                if match[2]
                else self._register(match[3])
            )
            total += -value if match[1] == "-" else value
            self._text, first = self._text[match.end() :], False
        if first or (self._text and not self._text[0].isspace()):
            self._fail(f"unexpected '{self._text[:16]}' in expression")
        self._text = self._text.lstrip()
        return total

    def _register(self, name: str) -> int:
        for key, value in self._context.machine.cpus[0].registers().items():
            if name in key.split("/"):
                return value
        raise LineError(f"unknown register: '${name[:32]}'")
