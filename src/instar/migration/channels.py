"""Where a migration goes to or comes from: URIs and QMP's channel lists.

Source: QEMU's QAPI reference for MigrationAddress and MigrationChannel; texts as QEMU's.
"""

from __future__ import annotations

import os

from instar.errors import CommandError, HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

_KNOWN_ELSEWHERE: Final = ("tcp", "unix", "vsock", "fd", "exec", "rdma")
_SUFFIXES: Final = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
MAX_OFFSET: Final = (1 << 63) - 1
_S_IFMT: Final = 0o170000
_S_IFIFO: Final = 0o010000
MAIN_FD: Final = ("migration/main", 0)  # name and id of the main channel when it is a memfd


class Address:
    """One end of a main channel: a file from an offset on, or a memfd that only an update can hand over."""

    __slots__ = ("offset", "path")

    def __init__(self, path: str, offset: int = 0) -> None:
        self.path = path  # "" is a memfd
        self.offset = offset  # bytes

    @property
    def uri(self) -> str:
        """The address in QEMU's short form."""
        if not self.path:
            return "memfd:"
        return f"file:{self.path}" + (f",offset={self.offset}" if self.offset else "")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and (self.path, self.offset) == (
            other.path,
            other.offset,
        )

    __hash__ = None  # type: ignore[assignment]


def parse_uri(uri: str) -> Address:
    """Return the address that ``uri`` means.

    Raises:
        CommandError: it means none that this version has.
    """
    scheme, colon, rest = uri.partition(":")
    if not colon or (scheme not in ("file", "memfd") and scheme not in _KNOWN_ELSEWHERE):
        raise CommandError(f"unknown migration protocol: {uri}")
    if scheme in _KNOWN_ELSEWHERE:
        raise CommandError(
            f"migration protocol {scheme}: is not available in this version, file: and memfd: are"
        )
    if scheme == "memfd":
        if rest:
            raise CommandError(f"memfd: takes nothing after it, got '{rest}'")
        return Address("")
    path, comma, option = rest.partition(",offset=")
    if not path:
        raise CommandError("file: needs a path")
    return _file(path, parse_offset(option) if comma else 0)


def _file(path: str, offset: int) -> Address:
    try:
        usable = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # half of a surrogate pair, from JSON
        usable = False
    if not usable:
        raise CommandError(f"migration file {path!r}: not UTF-8, or has NUL")
    return Address(path, offset)


def open_file(path: str, flags: int) -> int:
    """Open the file of a main channel; never waits for another program.

    Raises:
        OSError: The host refused.
        HostError: It is a pipe: this program would wait in it for the other end, and that one may be itself.
    """
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    if os.fstat(fd).st_mode & _S_IFMT == _S_IFIFO:
        os.close(fd)
        raise HostError(f"cannot open migration file {path}: it is a pipe, not a file")
    return fd


def parse_offset(text: str) -> int:
    """Return a size as QEMU writes it (``4096``, ``0x1000``, ``16k``)."""
    digits = text.rstrip("bkmgtBKMGT") if not text.startswith("0x") else text
    suffix = text[len(digits) :].lower()
    try:
        value = int(digits, 0) << _SUFFIXES[suffix]
    except (ValueError, KeyError):
        value = -1
    if not 0 <= value <= MAX_OFFSET:
        raise CommandError(f"file URI has bad offset {text}")
    return value


def resolve(uri: str | None, channels: Sequence[Mapping[str, object]] | None) -> Address:
    """Return the main address that a ``migrate`` or ``migrate-incoming`` names, one way or the other.

    Raises:
        CommandError: none, both, or one that this version does not have.
    """
    if uri is not None and channels is not None:
        raise CommandError("need either 'uri' or 'channels' argument, not both")
    if uri is not None:
        return parse_uri(uri)
    if channels is None:
        raise CommandError("need either 'uri' or 'channels' argument")
    found: dict[str, Address] = {}
    for channel in channels:
        kind = channel.get("channel-type")
        if kind not in ("main", "cpr"):
            raise CommandError(f"Parameter 'channel-type' does not accept value '{kind}'")
        if kind in found:
            raise CommandError(f"Channel list has more than one {kind} entry")
        found[str(kind)] = _parse_address(channel.get("addr"))
    if "main" not in found:
        raise CommandError("Channel list has no main entry")
    if "cpr" in found:
        raise CommandError(
            "a 'cpr' migration channel is for mode cpr-transfer, which is not available in this version"
        )
    return found["main"]


def _parse_address(addr: object) -> Address:
    if not isinstance(addr, dict):
        raise CommandError("Invalid parameter type for 'addr', expected: object")
    fields: dict[str, object] = addr  # pyright: ignore[reportUnknownVariableType]
    transport = fields.get("transport")
    if transport == "memfd":
        return Address("")
    if transport == "file":
        path, offset = fields.get("filename"), fields.get("offset", 0)
        if not isinstance(path, str) or not path:
            raise CommandError("Parameter 'filename' is missing")
        if type(offset) is not int or not 0 <= offset <= MAX_OFFSET:
            raise CommandError(f"Parameter 'offset' expects a size, got {offset!r}")
        return _file(path, offset)
    if transport in ("socket", "exec", "rdma"):
        raise CommandError(
            f"migration transport {transport} is not available in this version, file and memfd are"
        )
    raise CommandError(f"Parameter 'transport' does not accept value '{transport}'")
