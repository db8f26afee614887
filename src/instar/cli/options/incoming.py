"""``-incoming``: where the state of a VM comes from, in any of QEMU's three forms."""

from __future__ import annotations

from instar.cli.options.grammar import convert, split_commas
from instar.cli.options.table import Key
from instar.errors import ConfigError
from instar.units import MAX_SIZE, parse_size, shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.cli.options.grammar import Value

_ALLOWED = "allowed are file:PATH[,offset=N], memfd: and defer"
_OFFSET = ",offset="
_KEYS = (
    Key("channel-type", "choice", "channel", choices=("main",), required=True),
    Key("addr.transport", "choice", "transport", choices=("file", "memfd"), required=True),
    Key("addr.filename", "text", "file", low=1, high=4095),
    Key("addr.offset", "size", "bytes before the state", high=MAX_SIZE),
)


def incoming_uri(word: str) -> str:
    """Return ``defer``, ``memfd:`` or ``file:PATH[,offset=BYTES]``, the last two checked.

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
    is_file = checked["addr.transport"] == "file"
    if is_file != ("addr.filename" in checked) or (not is_file and "addr.offset" in checked):
        raise ConfigError(
            "-incoming: transport file needs addr.filename, transport memfd takes neither file nor offset"
        )
    if not is_file:
        return "memfd:"
    return _file_uri(str(checked["addr.filename"]), int(checked.get("addr.offset", 0)))


def _file_uri(path: str, offset: int) -> str:
    if not path or _OFFSET in path:
        raise ConfigError(
            f"-incoming: the file name {shorten(path)} is empty or contains {_OFFSET!r}"
        )
    return f"file:{path}{_OFFSET}{offset}" if offset else f"file:{path}"
