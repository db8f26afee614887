"""Where a migration goes to or comes from: URIs and QMP's channel lists.

Source: QEMU's QAPI reference for MigrationAddress and MigrationChannel; texts as QEMU's.
"""

from __future__ import annotations

import os

from instar.chardev.address import InetAddress, UnixAddress
from instar.errors import CommandError, ConfigError, HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

_KNOWN_ELSEWHERE: Final = ("vsock", "fd", "exec", "rdma")
_MAX_PORT: Final = 65535
_SUFFIXES: Final = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
MAX_OFFSET: Final = (1 << 63) - 1
_S_IFMT: Final = 0o170000
_S_IFIFO: Final = 0o010000
BRIDGE: Final = ("migration/bridge", 0)  # ... of the socket to who has the vCPUs
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


class SocketAddress:
    """One end of a channel between two programs: a socket file, or a host and a TCP port.

    Attributes:
        path: Of the socket file; "" is TCP.
    """

    __slots__ = ("host", "path", "port")

    def __init__(self, path: str, host: str = "", port: int = 0) -> None:
        self.path = path
        self.host = host
        self.port = port

    @property
    def uri(self) -> str:
        """The address in QEMU's short form."""
        return f"unix:{self.path}" if self.path else f"tcp:{self.host}:{self.port}"

    @property
    def place(self) -> UnixAddress | InetAddress:
        """Who listens and connects there (ConfigError if no socket can be there)."""
        if self.path:
            return UnixAddress("migration", self.path)
        return InetAddress("migration", self.host, self.port)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SocketAddress) and self.uri == other.uri

    __hash__ = None  # type: ignore[assignment]


def parse_uri(uri: str) -> Address | SocketAddress:
    """Return the address that ``uri`` means.

    Raises:
        CommandError: it means none that this version has.
    """
    scheme, colon, rest = uri.partition(":")
    if colon and scheme in ("unix", "tcp"):
        return _parse_socket(scheme, rest)
    if not colon or (scheme not in ("file", "memfd") and scheme not in _KNOWN_ELSEWHERE):
        raise CommandError(f"unknown migration protocol: {uri}")
    if scheme in _KNOWN_ELSEWHERE:
        raise CommandError(
            f"migration protocol {scheme}: is not available in this version; file:, memfd:, unix: and tcp: are"
        )
    if scheme == "memfd":
        if rest:
            raise CommandError(f"memfd: takes nothing after it, got '{rest}'")
        return Address("")
    path, comma, option = rest.partition(",offset=")
    if not path:
        raise CommandError("file: needs a path")
    return _file(path, parse_offset(option) if comma else 0)


def _parse_socket(scheme: str, rest: str) -> SocketAddress:
    if scheme == "unix":
        return _socket(rest)
    host, colon, port = rest.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or not 0 < int(port) <= _MAX_PORT:
        raise CommandError(f"tcp:{rest}: expected tcp:HOST:PORT, port 1 to {_MAX_PORT}")
    return SocketAddress("", host.removeprefix("[").removesuffix("]") or "localhost", int(port))


def _socket(path: str) -> SocketAddress:
    if not path or "\0" in path:
        raise CommandError(f"unix:{path[:48]}: needs the path of a socket")
    address = SocketAddress(path)
    try:
        _ = address.place
    except (ConfigError, UnicodeEncodeError) as e:
        raise CommandError(f"unix:{path[:48]}...: {e}") from e
    return address


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


def resolve(
    uri: str | None, channels: Sequence[Mapping[str, object]] | None
) -> tuple[Address | SocketAddress, SocketAddress | None]:
    """Return the addresses of the main and (None without) the cpr channel that a ``migrate`` or its like names.

    Raises:
        CommandError: none, both, or one that this version does not have.
    """
    if uri is not None and channels is not None:
        raise CommandError("need either 'uri' or 'channels' argument, not both")
    if uri is not None:
        return parse_uri(uri), None
    if channels is None:
        raise CommandError("need either 'uri' or 'channels' argument")
    found: dict[str, Address | SocketAddress] = {}
    for channel in channels:
        kind = channel.get("channel-type")
        if kind not in ("main", "cpr"):
            raise CommandError(f"Parameter 'channel-type' does not accept value '{kind}'")
        if kind in found:
            raise CommandError(f"Channel list has more than one {kind} entry")
        found[str(kind)] = _parse_address(channel.get("addr"))
    if "main" not in found:
        raise CommandError("Channel list has no main entry")
    cpr = found.get("cpr")
    if cpr is not None and (not isinstance(cpr, SocketAddress) or not cpr.path):
        raise CommandError("bad cpr channel address; must be unix")
    return found["main"], cpr


def _parse_address(addr: object) -> Address | SocketAddress:
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
    if transport == "socket":
        return _socket_of(fields)
    if transport in ("exec", "rdma"):
        raise CommandError(
            f"migration transport {transport} is not available in this version; file, memfd and socket are"
        )
    raise CommandError(f"Parameter 'transport' does not accept value '{transport}'")


def _socket_of(fields: Mapping[str, object]) -> SocketAddress:
    kind = fields.get("type")
    if kind == "unix":
        path = fields.get("path")
        if not isinstance(path, str):
            raise CommandError("Parameter 'path' is missing")
        return _socket(path)
    if kind == "inet":
        host, port = fields.get("host"), fields.get("port")
        if not isinstance(host, str) or not isinstance(port, str):
            raise CommandError("Parameter 'host' or 'port' is missing")
        return _parse_socket("tcp", f"{host}:{port}")
    if kind in ("vsock", "fd"):
        raise CommandError(
            f"socket type {kind} is not available in this version; unix and inet are"
        )
    raise CommandError(f"Parameter 'type' does not accept value '{kind}'")
