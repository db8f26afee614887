"""The report of ``instar inspect`` as plain text, for pipes; the words are used by the terminal's view too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from instar.cli.inspect_fields import as_list, as_record

if TYPE_CHECKING:
    from collections.abc import Iterator

    Report = dict[str, Any]

MAX_SHOWN: Final = 8  # items of a list; --json has them all
MAX_TEXT: Final = 64  # characters of a text, bytes of a blob
HEX_FROM: Final = 1 << 16  # a larger number without a unit is an address or a set of bits


def headline(report: Report) -> str:
    """Return one sentence about the whole file."""
    if report["kind"] == "unknown":
        return f"{_name(report['file'])}: no state file"
    kind = {"stream": "state", "table": "table of descriptors"}[report["kind"]]
    program = f", written by Instar {report['program']}" if report["program"] else ""
    mode = f" in mode {report['mode']}" if report["mode"] else ""
    size = sum(made["length"] for made in report["objects"])
    counted = f"{len(report['objects'])} objects"
    return (
        f"{_name(report['file'])}: {kind}, format {report['format']}{program}{mode}; {counted}, {size} bytes; "
        f"looked at by Instar {report['reader']}"
    )


def object_line(made: Report) -> str:
    """Return one line about an object."""
    marks = [f"{made['state']} v{made['version']}"]
    marks += [f"{made['length']} bytes"] if made["length"] else []
    marks += [f"checksum {made['checksum']}"] if made["checksum"] != "missing" else ["missing"]
    marks += [f"keeps {', '.join(made['kept'])} for a newer version"] if made["kept"] else []
    return f"{made['id']}: {', '.join(marks)}"


def rows(fields: list[Report], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (name, value, meaning) of each field; those of states inside follow under their path."""
    for field in fields:
        name = f"{prefix}{_name(field['name'])}"
        inside: list[Report] = (
            _states(field["value"]) if field["kind"].startswith("state:") else []
        )
        if not inside:
            yield name, _with_unit(field), meaning(field)
            continue
        count = (
            f"{len(inside)} of {inside[0]['state']}" if isinstance(field["value"], list) else ""
        )
        yield name, count or f"{inside[0]['state']} v{inside[0]['version']}", meaning(field)
        for n, one in enumerate(inside):
            path = f"{name}[{n}]." if count else f"{name}."
            yield from rows(one["fields"], path)


def meaning(field: Report) -> str:
    """Return what the declaration says, or that there is none."""
    doc: str = field["doc"] or "(this program does not know it)"
    return f"{doc} (optional)" if field["optional"] else doc


def shown(value: object) -> str:
    """Return a value in a short, safe form: nothing in it can move a cursor or fill the screen."""
    match value:
        case str():
            return _cut(repr(value))
        case dict():
            digits = as_record(value).get("hex")  # pyright: ignore[reportUnknownArgumentType]
            if isinstance(digits, str) and not digits.strip("0123456789abcdef"):
                return _cut(f"{len(digits) // 2} bytes {digits}".rstrip())
            return _cut(repr(as_record(value)))  # pyright: ignore[reportUnknownArgumentType]
        case list():
            return _list(as_list(value))  # pyright: ignore[reportUnknownArgumentType]
        case _:
            return repr(value)


def lines(report: Report) -> Iterator[str]:
    """Yield the report, line by line."""
    yield headline(report)
    for memory in report["memory"]:
        yield f"memory {memory['name']}: {memory['size']} bytes"
    for row in report["descriptors"]:
        yield f"descriptor {shown(row)}" if not isinstance(row, dict) else descriptor(row)  # pyright: ignore[reportUnknownArgumentType]
    for name, value in report["info"].items():
        yield f"info {_name(name)}: {shown(value)}"
    for made in report["objects"]:
        yield ""
        yield object_line(made)
        if made["problem"]:
            yield f"  ! {made['problem']}"
        found = list(rows(made["fields"]))
        wide = max((len(name) for name, _, _ in found), default=0)
        yield from (f"  {name:<{wide}}  {value:<20}  {doc}" for name, value, doc in found)


def descriptor(row: Report) -> str:
    """Return one line about a descriptor."""
    name, ident, kind, owner, fd = (
        _plain(row.get(key, "")) for key in ("name", "id", "kind", "owner", "fd")
    )
    return f"descriptor {name}/{ident}: {kind} of {owner}, number {fd}"


def _plain(value: object) -> str:
    return _name(value) if isinstance(value, str) else _cut(repr(value))


def _name(name: str) -> str:
    return name if name.isprintable() and len(name) <= MAX_TEXT else _cut(repr(name))


def _states(value: Any) -> list[Any]:  # noqa: ANN401 - a value of the report
    found: list[Any] = as_list(value) if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownArgumentType]
    return found if all("fields" in as_record(one) for one in found) else []


def _with_unit(field: Report) -> str:
    value = field["value"]
    if type(value) is not int:
        return shown(value)
    if field["unit"]:
        return f"{value} {field['unit']}"
    return f"{value} ({value:#x})" if abs(value) >= HEX_FROM else str(value)


def _list(value: list[object]) -> str:
    if len(value) > MAX_SHOWN and all(item == value[0] for item in value):
        return f"{len(value)} x {shown(value[0])}"
    first = ", ".join(shown(item) for item in value[:MAX_SHOWN])
    more = f", ... ({len(value)} in all)" if len(value) > MAX_SHOWN else ""
    return f"[{first}{more}]"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 3]}..."
