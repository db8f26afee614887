"""The backend of ``chardev-add``: from QAPI's unions to the argument of ``-chardev``.

Source: QEMU's documented ``ChardevBackend``, ``SocketAddressLegacy`` and their members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping  # noqa: TC003 - annotations are evaluated for the schema
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from instar.errors import BadArgumentError
from instar.monitor.command import Arg, convert_members, members_of

Pairs = list[tuple[str, object]]


@dataclass
class ChardevBackend:
    """A kind and its options."""

    type: Annotated[
        Literal["file", "memory", "null", "pipe", "pty", "ringbuf", "socket", "stdio"],
        Arg("Kind; memory is ringbuf."),
    ]
    data: Annotated[dict[str, object], Arg("Options of the kind, as QEMU names them.")]


@dataclass
class _File:
    out: Annotated[str, Arg("File to write.")]
    append: Annotated[bool, Arg("Keep what is in it.")] = False


@dataclass
class _Pipe:
    device: Annotated[str, Arg("Path without .in and .out.")]


@dataclass
class _Ring:
    size: Annotated[int, Arg("Bytes, a power of 2.", ge=1)] = 65536


@dataclass
class _Stdio:
    signal: Annotated[bool, Arg("Ctrl-C interrupts the monitor.")] = True


@dataclass
class _Nothing:
    pass


@dataclass
class _Address:
    type: Annotated[Literal["unix", "inet"], Arg("Kind.")]
    data: Annotated[dict[str, object], Arg("Its members.")]


@dataclass
class _Unix:
    path: Annotated[str, Arg("Socket file.")]


@dataclass
class _Inet:
    host: Annotated[str, Arg("Name or address.")]
    port: Annotated[str, Arg("TCP port.")]
    ipv4: Annotated[bool | None, Arg("Take IPv4 addresses.")] = None
    ipv6: Annotated[bool | None, Arg("Take IPv6 addresses.")] = None


@dataclass
class _Socket:
    addr: Annotated[_Address, Arg("Where.")]
    server: Annotated[bool, Arg("Listen.")] = True
    wait: Annotated[bool, Arg("Only false: the guest runs.")] = False
    nodelay: Annotated[bool | None, Arg("Send small pieces at once.")] = None
    reconnect_ms: Annotated[int | None, Arg("Try again after.", unit="ms")] = None
    tls_creds: Annotated[str | None, Arg("Credentials: speak TLS.")] = None
    reopen_on_cpr: Annotated[bool | None, Arg("An update closes the TLS session.")] = None


def option_argument(ident: str, backend: ChardevBackend) -> str:
    """Return the argument of ``-chardev`` that means the same.

    Raises:
        BadArgumentError: A member is missing, unknown or mistyped.
    """
    kind = "ringbuf" if backend.type == "memory" else backend.type
    cls, pairs_of = _KINDS[kind]
    data: Any = _read(cls, backend.data, "backend.data.")
    words = [kind, f"id={_escaped(ident)}"]
    words += [f"{name}={_escaped(value)}" for name, value in pairs_of(data) if value is not None]
    return ",".join(words)


def _socket(data: _Socket) -> Pairs:
    if data.wait:
        raise BadArgumentError("Parameter 'backend.data.wait' must be false: the guest would wait")
    pairs: Pairs = [("server", data.server), ("nodelay", data.nodelay)]
    if data.server:
        pairs.append(("wait", False))
    if data.reconnect_ms is not None:
        pairs.append(("reconnect-ms", data.reconnect_ms))
    pairs += [("tls-creds", data.tls_creds), ("reopen-on-cpr", data.reopen_on_cpr)]
    if data.addr.type == "unix":
        return [("path", _read(_Unix, data.addr.data, "backend.data.addr.data.").path), *pairs]
    inet = _read(_Inet, data.addr.data, "backend.data.addr.data.")
    families = [("ipv4", inet.ipv4), ("ipv6", inet.ipv6)]
    return [("host", inet.host), ("port", inet.port), *families, *pairs]


def _nothing(_data: _Nothing) -> Pairs:
    return []


_KINDS: Final[dict[str, tuple[type, Callable[[Any], Pairs]]]] = {
    "file": (_File, lambda data: [("path", data.out), ("append", data.append)]),
    "null": (_Nothing, _nothing),
    "pipe": (_Pipe, lambda data: [("path", data.device)]),
    "pty": (_Nothing, _nothing),
    "ringbuf": (_Ring, lambda data: [("size", f"{data.size}B")]),
    "socket": (_Socket, _socket),
    "stdio": (_Stdio, lambda data: [("signal", data.signal)]),
}


def _read(cls: type, raw: Mapping[str, object], path: str) -> Any:  # noqa: ANN401 - of the class given
    return cls(**convert_members(members_of(cls), raw, path))


def _escaped(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).replace(",", ",,")
