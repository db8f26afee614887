"""``-incoming``: where the state of a VM comes from, in any of QEMU's three forms."""

from __future__ import annotations

import os

from instar.chardev.address import MAX_PATH
from instar.cli.options.grammar import convert, split_commas
from instar.cli.options.table import Key
from instar.errors import ConfigError
from instar.units import MAX_SIZE, parse_size, shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.cli.options.grammar import Value

_ALLOWED = "allowed are file:PATH[,offset=N], unix:PATH, tcp:HOST:PORT, memfd: and defer"
_MAX_PORT = 65535
_OFFSET = ",offset="
_KEYS = (
    Key("channel-type", "choice", "channel", choices=("main", "cpr"), required=True),
    Key(
        "addr.transport", "choice", "transport", choices=("file", "memfd", "socket"), required=True
    ),
    Key("addr.filename", "text", "file", low=1, high=4095),
    Key("addr.offset", "size", "bytes before the state", high=MAX_SIZE),
    Key("addr.type", "choice", "family of the socket", choices=("unix", "inet")),
    Key("addr.path", "text", "socket file", low=1, high=107),
    Key("addr.host", "text", "host of the listener", low=1, high=255),
    Key("addr.port", "text", "TCP port", low=1, high=5),
)
_TAKES = {
    "file": {"addr.filename", "addr.offset"},
    "memfd": set[str](),
    "unix": {"addr.type", "addr.path"},
    "inet": {"addr.type", "addr.host", "addr.port"},
}
_NEEDS = {"file": "addr.filename", "memfd": "", "unix": "addr.path", "inet": "addr.port"}
CPR = "cpr:"  # before the path of a cpr channel's socket; no URI begins so


def incoming_uri(word: str) -> str:
    """Return ``defer``, a checked URI, or for a cpr channel ``cpr:PATH``.

    Args:
        word: A URI, ``defer``, a channel as a JSON object or as dotted keys (``main,addr.transport=file,...``).

    Raises:
        ConfigError: another transport or channel, a bad offset.
    """
    if word.startswith("{"):
        # json's import costs milliseconds, which few command lines need to pay
        from instar.cli.options.json_form import read_object  # noqa: PLC0415

        return _channel_uri(read_object("-incoming", word))
    if word.startswith(("main,", "cpr,", "channel-type=")):
        return _channel_uri(_dotted(word))
    if word in {"defer", "memfd:"}:
        return word
    scheme, _, rest = word.partition(":")
    if scheme == "unix":
        return f"unix:{_socket_path(rest)}"
    if scheme == "tcp":
        host, _, port = rest.rpartition(":")
        return _tcp_uri(host, port)
    if scheme != "file":
        raise ConfigError(f"-incoming: unknown migration protocol: {shorten(word)}; {_ALLOWED}")
    path, _, offset = rest.partition(_OFFSET)
    try:
        size = parse_size(offset) if _OFFSET in rest else 0
    except ConfigError as e:
        raise ConfigError(f"-incoming {shorten(word)}: offset: {e}") from e
    return _file_uri(path, size)


def _dotted(word: str) -> dict[str, Value]:
    channel: dict[str, Value] = {}
    for position, part in enumerate(split_commas(word)):
        key, equals, value = part.partition("=")
        if position == 0 and not equals:
            key, value = "channel-type", part
        channel[key] = value
    return channel


def _channel_uri(channel: dict[str, Value]) -> str:
    known = {key.name: key for key in _KEYS}
    for name in channel:
        if name not in known:
            raise ConfigError(
                f"-incoming: a channel has no key {shorten(name)}; allowed are {', '.join(known)}"
            )
    checked = {
        key.name: convert(f"-incoming: {key.name}", key, channel[key.name])
        for key in _KEYS
        if key.name in channel
    }
    for key in _KEYS:
        if key.required and key.name not in checked:
            raise ConfigError(f"-incoming: a channel needs {key.name}")
    values = {name: str(value) for name, value in checked.items()}
    if values["channel-type"] == "cpr":
        return CPR + _cpr_path(values)
    kind = values["addr.transport"]
    kind = values.get("addr.type", "unix") if kind == "socket" else kind
    wrong = set(values) - {"channel-type", "addr.transport"} - _TAKES[kind]
    if wrong or (_NEEDS[kind] and _NEEDS[kind] not in values):
        raise ConfigError(
            f"-incoming: a channel of {kind} takes {', '.join(sorted(_TAKES[kind])) or 'nothing more'}, "
            f"and needs {_NEEDS[kind] or 'nothing'}"
        )
    if kind == "file":
        return _file_uri(values["addr.filename"], int(checked.get("addr.offset", 0)))
    if kind == "unix":
        return f"unix:{_socket_path(values['addr.path'])}"
    return (
        _tcp_uri(values.get("addr.host", ""), values["addr.port"]) if kind == "inet" else "memfd:"
    )


def _cpr_path(values: dict[str, str]) -> str:
    if values["addr.transport"] != "socket" or values.get("addr.type") != "unix":
        raise ConfigError("-incoming: bad cpr channel socket type; must be unix")
    return _socket_path(values.get("addr.path", ""))


def _socket_path(path: str) -> str:
    if not 0 < len(os.fsencode(path)) <= MAX_PATH:
        raise ConfigError(
            f"-incoming: the path of a socket has {len(os.fsencode(path))} bytes, allowed 1 to {MAX_PATH}"
        )
    return path


def _tcp_uri(host: str, port: str) -> str:
    if not (port.isascii() and port.isdigit()) or not 0 < int(port) <= _MAX_PORT:
        raise ConfigError(f"-incoming tcp: port {shorten(port)}, allowed 1 to {_MAX_PORT}")
    return f"tcp:{host or 'localhost'}:{int(port)}"


def _file_uri(path: str, offset: int) -> str:
    if not path or _OFFSET in path:
        raise ConfigError(
            f"-incoming: the file name {shorten(path)} is empty or contains {_OFFSET!r}"
        )
    return f"file:{path}{_OFFSET}{offset}" if offset else f"file:{path}"
