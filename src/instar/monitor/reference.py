"""The reference pages of QMP and HMP, written from the command table."""

from __future__ import annotations

import typing
from dataclasses import is_dataclass
from typing import Any, Final, Literal

from instar.monitor.command import (
    HMP_COMMANDS,
    QMP_COMMANDS,
    Command,
    Member,
    ObjectType,
    members_of,
    without_none,
)
from instar.monitor.events import EVENTS
from instar.monitor.hmp import usage

_NAMES: Final[dict[object, str]] = {
    str: "string", int: "integer", bool: "boolean", float: "number", object: "any", dict: "object",
}  # fmt: skip


def qmp_page() -> str:
    """Return ``docs/reference/qmp.md``."""
    out = [
        "# QMP commands and events\n",
        "Written by `tools/gen_docs.py` from the command table; every exchange shown is executed by a test.",
        "`...` stands for a long reply, a `?` marks what may be left out. Errors are of class `GenericError`.\n",
    ]
    for topic in sorted({c.topic for c in QMP_COMMANDS.values()}):
        out.append(f"## {topic.capitalize()}\n")
        made = [c for _, c in sorted(QMP_COMMANDS.items()) if c.topic == topic]
        for command in made:
            out += _qmp_command(command)
    out.append("## Events\n")
    for name, (doc, cls) in sorted(EVENTS.items()):
        out.append(f"### {name}\n\n{doc}\n")
        out += _table("Data", members_of(cls)) if cls is not None else []
    return "\n".join(out).rstrip() + "\n"


def hmp_page() -> str:
    """Return ``docs/reference/hmp.md``."""
    out = [
        "# HMP commands\n",
        "Written by `tools/gen_docs.py` from the command table; every exchange shown is executed by a test.\n",
    ]
    aliases: dict[str, list[str]] = {}
    commands: dict[str, Command] = {}
    for key, command in HMP_COMMANDS.items():
        assert command.hmp is not None
        commands[command.hmp.name] = command
        if key != command.hmp.name:
            aliases.setdefault(command.hmp.name, []).append(key)
    for name, command in sorted(commands.items(), key=lambda item: (" " in item[0], item[0])):
        also = f" (also `{'`, `'.join(aliases[name])}`)" if name in aliases else ""
        out.append(f"## {usage(command)}\n\n{command.summary}{also}\n")
        out += _when(command)
        out += _table("Argument", command.members)
        shown = [
            f"(instar) {typed}\n{printed}".rstrip() for typed, printed in command.hmp_examples
        ]
        out.append("```\n" + "\n".join(shown) + "\n```\n")
    return "\n".join(out).rstrip() + "\n"


def _qmp_command(command: Command) -> list[str]:
    out = [f"### {command.name}\n\n{command.summary} Since {command.since}.\n"]
    out += _when(command)
    out += _table("Argument", command.members)
    if command.returns is not None and command.returns is not type(None):
        out.append(f"Returns {_type(command.returns)}.\n")
        out += _table("Member", _returned(command.returns))
    exchanges = [f"-> {request}\n<- {reply}" for request, reply in command.examples]
    return [*out, "```\n" + "\n".join(exchanges) + "\n```\n"]


def _when(command: Command) -> list[str]:
    if command.allowed_in is None:
        return []
    return [f"Allowed in run states {', '.join(sorted(command.allowed_in))}.\n"]


def _returned(kind: Any) -> tuple[Member, ...]:  # noqa: ANN401 - a type annotation may be anything
    """Return the members of an object, or of the objects in a list."""
    kind = without_none(kind)
    if typing.get_origin(kind) is list:
        kind = typing.get_args(kind)[0]
    if isinstance(kind, ObjectType):
        return kind.members
    return members_of(typing.cast("type", kind)) if is_dataclass(kind) else ()


def _table(head: str, members: tuple[Member, ...]) -> list[str]:
    if not members:
        return []
    rows = [f"| {head} | Type | Meaning |", "|---|---|---|"]
    for member in members:
        mark = "?" if member.optional else ""
        name = f"-{member.arg.flag}" if member.arg.flag else member.name
        rows.append(
            f"| `{name}`{mark} | {_member_type(member)} | {member.arg.doc}{_limits(member)} |"
        )
    return ["\n".join(rows) + "\n"]


def _member_type(member: Member) -> str:
    if member.arg.values:
        return " \\| ".join(f"`{value}`" for value in member.arg.values)
    return "format" if member.arg.form == "format" else _type(member.kind)


def _limits(member: Member) -> str:
    arg = member.arg
    parts = [f"unit {arg.unit}"] if arg.unit else []
    parts += [f"at least {arg.ge}"] if arg.ge is not None else []
    parts += [f"at most {arg.le}"] if arg.le is not None else []
    return f" ({', '.join(parts)})" if parts else ""


def _type(kind: Any) -> str:  # noqa: ANN401 - a type annotation may be anything
    kind = without_none(kind)
    origin = typing.get_origin(kind) or kind
    if isinstance(kind, ObjectType):
        return kind.name
    if origin is Literal:
        return " \\| ".join(f"`{value}`" for value in typing.get_args(kind))
    if origin is list:
        return f"list of {_type(typing.get_args(kind)[0])}"
    if is_dataclass(kind):
        members = members_of(typing.cast("type", kind))
        return "{" + ", ".join(f"{m.name}{'?' if m.optional else ''}" for m in members) + "}"
    return _NAMES[origin]
