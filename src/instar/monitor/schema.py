"""``query-qmp-schema``: the command table in QEMU's introspection format.

Source: QEMU docs/devel/qapi-code-gen, "Client introspection"; type names are numbers there too.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, Final, Literal

from instar.monitor.command import QMP_COMMANDS, Member, ObjectType, members_of, without_none
from instar.monitor.events import EVENTS

Entry = dict[str, object]

_BUILTIN: Final[dict[type, tuple[str, str]]] = {
    str: ("str", "string"), int: ("int", "int"), bool: ("bool", "boolean"), float: ("number", "number"),
    object: ("any", "value"), dict: ("any", "value"), Mapping: ("any", "value"),
}  # fmt: skip


def schema() -> list[Entry]:
    """Return all commands and events, and after them the types that they use."""
    types = _Types()
    entries: list[Entry] = []
    for name, made in sorted(QMP_COMMANDS.items()):
        arguments = types.add_object(("arguments", name), made.members)
        returns = types.name_of(made.returns)
        entry: Entry = {"name": name, "meta-type": "command", "arg-type": arguments}
        entries.append({**entry, "ret-type": returns})
    for name, (_, cls) in sorted(EVENTS.items()):
        data = types.name_of(cls)
        entries.append({"name": name, "meta-type": "event", "arg-type": data})
    return entries + types.entries


class _Types:
    """Gives names to types and describes each once."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._names: dict[object, str] = {}

    def name_of(self, kind: Any) -> str:  # noqa: ANN401 - a type annotation may be anything
        """Return the name of a Python type, describing it if it is new; None is the empty object."""
        kind = without_none(kind)
        origin = typing.get_origin(kind) or kind
        if kind is None or kind is type(None):
            return self.add_object("nothing", ())
        if isinstance(kind, ObjectType):
            return self.add_object(kind.name, kind.members)
        if origin is Literal:
            return self._enum(typing.get_args(kind))
        if origin is list:
            return self._array(self.name_of(typing.get_args(kind)[0]))
        if is_dataclass(kind):
            return self.add_object(kind, members_of(typing.cast("type", kind)))
        name, json_type = _BUILTIN[origin]
        return self._describe(
            name, {"name": name, "meta-type": "builtin", "json-type": json_type}, name
        )

    def add_object(self, key: object, members: tuple[Member, ...]) -> str:
        """Return the name of an object type."""
        key = key if members else "nothing"
        if key not in self._names:
            name = self._names[key] = str(len(self._names))
            shown = [self._member(m) for m in members]
            self.entries.append({"name": name, "meta-type": "object", "members": shown})
        return self._names[key]

    def _member(self, member: Member) -> Entry:
        values = member.arg.values
        shown: Entry = {
            "name": member.name,
            "type": self._enum(values) if values else self.name_of(member.kind),
        }
        return {**shown, "default": None} if member.optional else shown

    def _enum(self, values: tuple[str, ...]) -> str:
        body: Entry = {
            "meta-type": "enum",
            "members": [{"name": value} for value in values],
            "values": list(values),
        }
        return self._describe(("enum", values), body)

    def _array(self, element: str) -> str:
        name = f"[{element}]"
        return self._describe(name, {"meta-type": "array", "element-type": element}, name)

    def _describe(self, key: object, body: Entry, name: str = "") -> str:
        if key not in self._names:
            self._names[key] = name or str(len(self._names))
            self.entries.append({"name": self._names[key], **body})
        return self._names[key]
