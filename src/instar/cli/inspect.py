"""``instar inspect``: what is in a state file, for people and as JSON, whoever wrote it and whatever happened to it.

Nothing is executed or loaded: the file is a peer's word, every object is looked at on its own, and one that is damaged
or unknown is named while the others are shown. The report is plain data; ``docs/reference/inspect.md`` documents it.

Source: own.
"""

from __future__ import annotations

import os
from stat import S_ISBLK, S_ISDIR, S_ISREG
from struct import Struct
from typing import TYPE_CHECKING, Any, ClassVar, Final
from zlib import crc32

from instar._version import VERSION
from instar.cli import states as declared
from instar.cli.inspect_fields import as_list, as_record, fields_of, plain
from instar.cpr import state as states
from instar.cpr.adopted import FORMAT, MAGIC, MAX_SIZE
from instar.cpr.encoding import decode
from instar.cpr.errors import CprError, StateCorruptError, StateError, StateTooNewError
from instar.cpr.stream import MAGIC as STREAM_MAGIC
from instar.cpr.stream import Reader
from instar.errors import ConfigError, HostError, InstarError
from instar.monitor import state as monitor_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from instar.cpr.manifest import Section
    from instar.cpr.state import Record, State
    from instar.errors import Fault

    Report = dict[str, Any]

DECLARING: Final = (*declared.DECLARING, monitor_state)
_HEADER: Final = Struct("<8sIII")  # of the table of descriptors: magic, format, length, crc32


class DamagedError(InstarError):
    """The file is torn, damaged or no state file; what could be read was shown."""

    code = "state-damaged"
    fault: ClassVar[Fault] = "peer"
    exit_status = 4


class UnreadableError(InstarError):
    """The file is whole, but another version of this program is needed for all of it."""

    code = "state-unreadable"
    fault: ClassVar[Fault] = "peer"
    exit_status = 5


class _AnyDescriptor:
    """Stands for the descriptors that a state names; they are not here, and nothing is done with the number."""

    def take(self, _name: str, _ident: int, /) -> int:
        return 0

    def resave(self, _name: str, _ident: int, _fd: int, /, *, owner: str) -> None:
        raise AssertionError(owner)


def report_on(name: str, *, offset: int = 0, only: str | None = None) -> Report:
    """Return what is in a state file.

    Args:
        name: A path, ``-`` for standard input, or ``fd:N`` for an open descriptor.
        offset: Where the state begins, bytes from the beginning of a file.
        only: Id of the one object to look at.

    Raises:
        ConfigError: The descriptor or the object does not exist.
        HostError: The file cannot be opened or read.
    """
    fd = _open(name)
    report: Report = {
        "file": name, "kind": "unknown", "format": 0, "program": "", "mode": "", "reader": VERSION, "info": {},
        "objects": [], "memory": [], "descriptors": [], "damage": [], "unreadable": [],
    }  # fmt: skip
    try:
        _look(report, fd, offset, only)
    except StateTooNewError as e:
        report["unreadable"].append(str(e))
    except StateError as e:
        report["damage"].append(str(e))
    except CprError as e:
        raise HostError(f"{name}: {e}") from e
    finally:
        if fd > 2 and not name.startswith("fd:"):
            os.close(fd)
    return report


def verdict(report: Report) -> InstarError | None:
    """Return the error that says what is wrong with the file; None if this program reads all that was shown."""
    for kind, error in (("damage", DamagedError), ("unreadable", UnreadableError)):
        found = report[kind]
        if found:
            more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
            return error(f"{report['file']}: {found[0]}{more}")
    return None


def _open(name: str) -> int:
    if name == "-":
        return 0
    if name.startswith("fd:"):
        number = name.removeprefix("fd:")
        if not (number.isascii() and number.isdigit() and len(number) <= 9):
            raise ConfigError(f"{name}: the number of an open descriptor is needed")
        return int(number)
    try:
        # A pipe that nobody writes to would be waited for, and a terminal could become ours.
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) else str(e)
        raise HostError(f"cannot open {name}: {why}") from e
    mode = os.fstat(fd).st_mode
    if S_ISREG(mode) or S_ISBLK(mode):
        return fd
    os.close(fd)
    error = HostError(
        f"cannot read {name}: Is a directory"
        if S_ISDIR(mode)
        else f"cannot read {name}: it is no file"
    )
    raise error.hint("- reads standard input, fd:N an open descriptor, both of any kind")


def _look(report: Report, fd: int, offset: int, only: str | None) -> None:
    head = _head(fd, offset)
    if head == MAGIC:
        report["kind"] = "table"
        _look_at_table(report, _table(fd, offset, head), only)
        return
    if head != STREAM_MAGIC:
        raise StateCorruptError(f"header: {_begins(head)}, which is no state file of ours")
    report["kind"] = "stream"
    seeks = _seekable(fd)
    _look_at_stream(report, Reader(fd, offset=offset, head=b"" if seeks else head), only)


def _begins(head: bytes) -> str:
    return f"begins with {head.hex(' ')}" if head else "is empty"


def _seekable(fd: int) -> bool:
    try:
        os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return False
    return True


def _head(fd: int, offset: int) -> bytes:
    """Return the first 8 bytes, fewer of a shorter file."""
    if not _seekable(fd) and offset:
        raise ConfigError(f"offset: {offset} in a descriptor that cannot seek")
    return _take(fd, offset, len(MAGIC))


def _take(fd: int, offset: int, size: int) -> bytes:
    """Return ``size`` bytes, fewer at the end."""
    seeks = _seekable(fd)
    data = b""
    try:
        while len(data) < size:
            missing = min(size - len(data), 1 << 20)
            part = os.pread(fd, missing, offset + len(data)) if seeks else os.read(fd, missing)
            if not part:
                break
            data += part
    except (OSError, OverflowError) as e:
        why = e.strerror if isinstance(e, OSError) else str(e)
        raise HostError(f"the state cannot be read: {why}") from e
    return data


# ---------------------------------------------------------------- a stream


def _look_at_stream(report: Report, reader: Reader, only: str | None) -> None:
    manifest = reader.manifest
    report["format"] = 1
    report["program"], report["mode"] = manifest.program, manifest.mode
    report["info"] = plain(manifest.info)
    report["memory"] = [{"name": m.name, "size": m.size} for m in manifest.bulk.values()]
    _check_only(only, manifest.objects)
    for section in manifest.objects.values():
        if only is None or only == section.id:
            _look_at_section(report, reader, section)
    if only is None and not any(o["checksum"] == "missing" for o in report["objects"]):
        reader.skip_bulk()
        reader.finish()


def _look_at_section(report: Report, reader: Reader, section: Section) -> None:
    made = _object(section.id, section.state, section.version)
    made["length"], made["inner"] = section.length, dict(section.inner)
    report["objects"].append(made)
    try:
        record = reader.record(section.id)
    except StateCorruptError as e:
        made["checksum"] = "missing" if ": torn" in str(e) else "damaged"
        made["problem"] = str(e)
        report["damage"].append(str(e))
        return
    _look_at_record(report, made, record)


def _object(ident: str, state: str, version: int) -> Report:
    return {
        "id": ident, "state": state, "version": version, "length": 0, "inner": {}, "checksum": "ok", "reads": False,
        "needs": None, "problem": None, "kept": [], "fields": [],
    }  # fmt: skip


def _look_at_record(report: Report, made: Report, record: Record) -> None:
    """Fill in what the record says and whether this program reads it."""
    cls = states.registry().get(made["state"])
    too_other = _other_version(report, made, cls)
    known = cls if cls is not None and made["version"] <= cls.state_version else None
    made["fields"] = fields_of(known, made["version"], record)
    if too_other or cls is None:
        made["problem"] = too_other
        report["unreadable"].append(too_other)
        return
    try:
        loaded = states.load(cls, made["version"], record, fds=_AnyDescriptor())
    except StateTooNewError as e:  # an inner state of a file whose manifest does not tell of it
        made["problem"] = f"object {made['id']}: {e}"
        report["unreadable"].append(made["problem"])
    except StateError as e:
        made["problem"] = f"object {made['id']}: {e}"
        report["damage"].append(made["problem"])
    else:
        made["reads"] = True
        made["kept"] = [
            f"{path}.{name}" if path else name
            for path, fields in states.kept(loaded).items()
            for name in fields
        ]


def _other_version(report: Report, made: Report, cls: type[State] | None) -> str:
    """Return the sentence about a state that another version of this program is needed for; ``""`` if none is."""
    if cls is None:
        made["needs"] = {
            "state": made["state"],
            "version": made["version"],
            "program": report["program"],
        }
        return (
            f"object {made['id']}: this program ({VERSION}) does not know state {made['state']}; "
            f"{_writer(report)} does"
        )
    for name, one, version in _versions(made, cls):
        if not one.state_oldest <= version <= one.state_version:
            newer = version > one.state_version
            made["needs"] = {
                "state": name, "version": version, "program": report["program"] if newer else "",
            }  # fmt: skip
            reads = f"this program ({VERSION}) reads v{one.state_oldest} to v{one.state_version}"
            who = f"{_writer(report)} or a later one" if newer else f"one that reads v{version}"
            return f"object {made['id']}: state {name} is v{version}, {reads}; {who} is needed"
    return ""


def _writer(report: Report) -> str:
    return (
        f"version {report['program']}, which wrote it," if report["program"] else "a later version"
    )


def _versions(made: Report, cls: type[State]) -> Iterator[tuple[str, type[State], int]]:
    yield cls.state_name, cls, made["version"]
    inner = states.inner(cls, cls.state_version)
    yield from ((name, inner[name], v) for name, v in made["inner"].items() if name in inner)


def _check_only(only: str | None, there: dict[str, Any]) -> None:
    if only is not None and only not in there:
        raise ConfigError(f"there is no object {only!r} in the file").hint(
            f"there are {', '.join(there) or 'none'}"
        )


# ---------------------------------------------------------------- a table of descriptors


def _table(fd: int, offset: int, head: bytes) -> Record:
    """Return the record in a table of descriptors, as ``instar.cpr.carriers`` makes it."""
    start = offset + len(head)
    rest = _take(fd, start, _HEADER.size - len(head))
    if len(rest) < _HEADER.size - len(head):
        raise StateCorruptError("header: torn")
    _, number, length, crc = _HEADER.unpack(head + rest)
    if number != FORMAT:
        raise StateTooNewError(f"header: table format {number}, this program reads {FORMAT}")
    if length > MAX_SIZE:
        raise StateCorruptError(f"table: {length} bytes, limit {MAX_SIZE}")
    data = _take(fd, start + len(rest), length)
    if len(data) < length:
        raise StateCorruptError(f"table: torn, {len(data)} of {length} bytes are there")
    if crc32(data) != crc:
        raise StateCorruptError(f"table: checksum {crc32(data):#010x}, expected {crc:#010x}")
    record = decode(data, "table")
    if not isinstance(record, dict):
        raise StateCorruptError("table: is not a record")
    return as_record(record)  # pyright: ignore[reportUnknownArgumentType]


def _look_at_table(report: Report, record: Record, only: str | None) -> None:
    report["format"] = FORMAT
    report["descriptors"] = plain(as_list(record.pop("fds", [])))
    news = as_record(record.get("info"))
    host = as_list(news.pop("host", []))
    update = as_record(news.get("report"))
    report["program"] = _text(update.get("old_version"))
    report["mode"] = _text(update.get("mode"))
    report["info"] = plain(record)
    found = {_text(item.get("id")): item for item in map(as_record, host)}
    _check_only(only, found)
    for ident, item in found.items():
        if only is None or only == ident:
            _look_at_host_item(report, ident, item)


def _look_at_host_item(report: Report, ident: str, item: Record) -> None:
    version = item.get("version")
    made = _object(ident, _text(item.get("state")), version if type(version) is int else 0)
    report["objects"].append(made)
    if isinstance(item.get("record"), dict):
        _look_at_record(report, made, as_record(item["record"]))
    else:
        made["problem"] = f"object {ident}: has no record"
        report["damage"].append(made["problem"])


def _text(value: object) -> str:
    """Return a text that is safe to show; ``""`` for what is none."""
    text = value[:255] if isinstance(value, str) else ""
    return text if text.isprintable() else repr(text)
