"""A record's fields with what their declarations say: part of ``instar inspect``.

Records are untrusted; nothing in them is believed but their shape, which the decoder checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instar.cpr import state as states

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from instar.cpr.fields import Field
    from instar.cpr.state import Record, State


def fields_of(cls: type[State] | None, version: int, record: Record) -> list[dict[str, Any]]:
    """Return the fields of ``record`` as plain data, in their order there.

    Args:
        cls: The state's declaration; None if this program does not know that version of it.
        version: Of the record; a field that came later is not what the declaration means.
        record: Untrusted.
    """
    declared: Mapping[str, Field] = {} if cls is None else cls.state_fields
    made: list[dict[str, Any]] = []
    for name, value, optional in _walk(record):
        field = declared.get(name)
        if field is not None and not optional and field.since > version:
            field = None
        made.append(
            {
                "name": name,
                "value": _value(field, value),
                "kind": field.wire if field else "",
                "unit": field.unit if field else "",
                "doc": field.doc if field else "",
                "known": field is not None,
                "optional": optional,
            }
        )
    return made


def plain(value: object) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Return a decoded value as JSON can hold it; bytes become ``{"hex": "..."}``."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in as_record(value).items()}  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, list):
        return [plain(item) for item in as_list(value)]  # pyright: ignore[reportUnknownArgumentType]
    return value


def as_record(value: object) -> Record:
    """Return a decoded value as a record; empty if it is none."""
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def as_list(value: object) -> list[object]:
    """Return a decoded value as a list; empty if it is none."""
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]


def _walk(record: Record) -> Iterator[tuple[str, object, bool]]:
    for name, value in record.items():
        if name == states.APART and isinstance(value, dict):
            yield from ((one, item, True) for one, item in as_record(value).items())  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield name, value, False


def _value(field: Field | None, value: object) -> Any:  # noqa: ANN401 - whatever JSON can hold
    cls: type[State] | None = getattr(field, "cls", None)  # of a state inside, or a list of them
    if cls is None:
        return plain(value)
    if isinstance(value, list):
        return [_inner(cls, item) for item in as_list(value)]  # pyright: ignore[reportUnknownArgumentType]
    return _inner(cls, value)


def _inner(cls: type[State], value: object) -> Any:  # noqa: ANN401 - whatever JSON can hold
    record = as_record(value)
    version, fields = record.get("version"), record.get("fields")
    if not isinstance(version, int) or not isinstance(fields, dict):
        return {"raw": plain(value)}  # whatever it is, it cannot pass for a state
    known = cls if version <= cls.state_version else None
    return {
        "state": cls.state_name,
        "version": version,
        "fields": fields_of(known, version, as_record(fields)),  # pyright: ignore[reportUnknownArgumentType]
    }
