"""The manifest of a stream: what is in it, who wrote it, and how long everything is."""

from __future__ import annotations

from instar.cpr.errors import StateCorruptError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.cpr.state import Record

MAX_OBJECTS: Final = 1 << 16
MAX_SECTIONS: Final = 1 << 28  # bytes of all state together; RAM is bulk and has its own size
MAX_NAME: Final = 255
MAX_INNER: Final = 256  # kinds of states inside one object


class Section:
    """An object's line in the manifest; ``offset`` and ``length`` in bytes, after the manifest.

    ``inner`` has the versions of the states inside it, by name, so that one too new is seen before it is read.
    """

    __slots__ = ("crc", "id", "inner", "length", "offset", "state", "version")

    def __init__(self, ident: str, state: str, numbers: tuple[int, int, int, int]) -> None:
        self.id = ident
        self.state = state
        self.version, self.offset, self.length, self.crc = numbers
        self.inner: dict[str, int] = {}


class Bulk:
    """A memory's line in the manifest; ``size`` in bytes."""

    __slots__ = ("name", "size")

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size


class Manifest:
    """What a stream holds, without having read it."""

    __slots__ = ("bulk", "info", "mode", "objects", "program")

    def __init__(self, program: str, mode: str, info: Record) -> None:
        self.program = program  # the writer's version
        self.mode = mode
        self.info = info
        self.objects: dict[str, Section] = {}
        self.bulk: dict[str, Bulk] = {}


def read_manifest(value: object) -> Manifest:
    """Check a decoded manifest (untrusted) and return it; StateCorruptError otherwise."""
    fields = _fields(value, "manifest", ("program", "mode", "info", "objects", "bulk"))
    info = fields["info"]
    if not isinstance(info, dict):
        raise StateCorruptError("manifest: info is not a record")
    program, mode = _text(fields, "program"), _text(fields, "mode")
    made = Manifest(program, mode, info)  # pyright: ignore[reportUnknownArgumentType]
    offset = 0
    for row in _rows(fields, "objects"):
        section = _section(row)
        if section.offset != offset or section.id in made.objects:
            raise StateCorruptError(f"manifest: object {section.id} is doubled or misplaced")
        offset += section.length
        made.objects[section.id] = section
    if offset > MAX_SECTIONS:
        raise StateCorruptError(f"manifest: {offset} bytes of state, limit {MAX_SECTIONS}")
    for row in _rows(fields, "bulk"):
        memory = _fields(row, "manifest: bulk", ("name", "size"))
        name = _text(memory, "name")
        if name in made.bulk:
            raise StateCorruptError(f"manifest: memory {name} is doubled")
        made.bulk[name] = Bulk(name, _number(memory, "size", 1 << 63))
    return made


def _section(row: object) -> Section:
    keys = ("id", "state", "version", "offset", "length", "crc")
    inner = isinstance(row, dict) and "inner" in row
    fields = _fields(row, "manifest: object", (*keys, "inner") if inner else keys)  # pyright: ignore[reportUnknownArgumentType]
    numbers = (
        _number(fields, "version", 1 << 31),
        _number(fields, "offset", MAX_SECTIONS),
        _number(fields, "length", MAX_SECTIONS),
        _number(fields, "crc", 0xFFFFFFFF),
    )
    made = Section(_text(fields, "id"), _text(fields, "state"), numbers)
    if inner:
        made.inner = _inner(fields["inner"])
    return made


def _inner(value: object) -> dict[str, int]:
    if not isinstance(value, dict) or len(value) > MAX_INNER:  # pyright: ignore[reportUnknownArgumentType]
        raise StateCorruptError(f"manifest: inner is not a record of at most {MAX_INNER} states")
    versions: Record = value  # pyright: ignore[reportUnknownVariableType]
    return {name: _number(versions, name, 1 << 31) for name in versions}


def _fields(value: object, what: str, keys: tuple[str, ...]) -> Record:
    if not isinstance(value, dict) or set(value) != set(keys):  # pyright: ignore[reportUnknownArgumentType]
        raise StateCorruptError(f"{what}: expected the keys {', '.join(keys)}")
    return value  # pyright: ignore[reportUnknownVariableType]


def _rows(fields: Record, key: str) -> list[object]:
    value = fields[key]
    if not isinstance(value, list):
        raise StateCorruptError(f"manifest: {key} is not a list")
    rows: list[object] = value  # pyright: ignore[reportUnknownVariableType]
    if len(rows) > MAX_OBJECTS:
        raise StateCorruptError(f"manifest: {len(rows)} {key}, limit {MAX_OBJECTS}")
    return rows


def _text(fields: Record, key: str) -> str:
    text = fields[key]
    if not isinstance(text, str) or len(text) > MAX_NAME or not text.isprintable():
        why = f"is not a printable text of at most {MAX_NAME} characters"
        raise StateCorruptError(f"manifest: {key} {why}")
    return text


def _number(fields: Record, key: str, limit: int) -> int:
    number = fields[key]
    if type(number) is not int or not 0 <= number <= limit:
        raise StateCorruptError(f"manifest: {key} is not a number up to {limit}")
    return number
