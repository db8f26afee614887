"""Character devices, the serial port and the monitors, with the defaults of a machine without a display."""

from __future__ import annotations

from instar.cli.options.config import ChardevConfig, MonitorConfig
from instar.cli.options.consoles import serial_chardevs
from instar.cli.options.daemons import vhost_chardevs
from instar.cli.options.entries import BY_NAME
from instar.cli.options.grammar import Values, read_keys
from instar.cli.options.tls import check_tls, read_tls
from instar.errors import ConfigError
from instar.units import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.cli.options.config import AddressFamily, ChardevKind, Config, MonitorMode
    from instar.cli.options.grammar import Given

MAX_FRONT_ENDS = 4  # of one mux, as QEMU
_FORMS = (
    "stdio, unix:PATH,server=on,wait=off, tcp:HOST:PORT,server=on,wait=off, pty, pipe:PATH, file:PATH, null, none, "
    "chardev:ID, or mon: and one of them"
)
_RING_SIZE = 65536  # bytes
_TCP_ONLY = ("host", "port", "ipv4", "ipv6", "nodelay")


class Characters:
    """Collects chardevs and who uses them; :meth:`finish` applies the defaults and checks."""

    def __init__(self, given: Given, config: Config) -> None:
        self._given = given
        self._config = config
        self._serials: list[str] = []  # chardev ids, "" for none
        self._monitor_count = 0  # numbers compat_monitorN
        self._ids: dict[str, ChardevConfig] = {}

    def read(self) -> None:
        """Fill ``chardevs``, ``serial`` and ``monitors`` of the Config.

        Raises:
            ConfigError: duplicate ids, unknown references, two users of one character device.
        """
        for values in self._given.each("chardev"):
            self._add_chardev(_chardev(values))
        for values in self._given.each("serial", "monitor", "qmp", "mon"):
            self._read_user(values)
        if not self._given.has("nodefaults"):
            self._defaults()
        self._config.serial = self._choose_serial()
        self._check_users()
        check_tls(self._config)

    def _read_user(self, values: Values) -> None:
        name = values.option.name
        if name == "serial":
            self._serials.append(self._read_word(values, f"serial{len(self._serials)}"))
        elif name == "mon":
            self._add_monitor(
                MonitorConfig(
                    chardev=values.text("chardev"),
                    mode=_mode(values.text("mode", "readline")),
                    pretty=values.flag("pretty", default=False),
                    ident=values.text("id"),
                )
            )
        elif values.word != "none":
            ident = self._read_word(values, f"compat_monitor{self._monitor_count}")
            self._monitor_count += 1
            self._add_monitor(
                MonitorConfig(chardev=ident, mode="control" if name == "qmp" else "readline")
            )

    def _read_word(self, values: Values, ident: str) -> str:
        """Return the id of the chardev that ``stdio``, ``unix:...`` stands for; make it."""
        what = f"-{values.option.name}"
        word = values.word
        shared = word.startswith("mon:")
        if shared:
            word = word.removeprefix("mon:")
            if values.option.name != "serial":
                raise ConfigError(f"{what}: mon: shares the serial port; it belongs to -serial")
        if word == "none" and not shared:
            return ""
        if word.startswith("chardev:"):
            ident = word.removeprefix("chardev:")
        else:
            chardev = _short_form(what, word, ident, self._given.warnings)
            chardev.mux = shared
            if shared and chardev.kind == "stdio":
                chardev.signal = False  # Ctrl-C belongs to the guest
            self._add_chardev(chardev)
        if shared:
            self._add_monitor(MonitorConfig(chardev=ident))
        return ident

    def _add_chardev(self, chardev: ChardevConfig) -> None:
        if chardev.id in self._ids:
            raise ConfigError(f"two character devices have the id {chardev.id!r}")
        self._ids[chardev.id] = chardev
        self._config.chardevs.append(chardev)
        if chardev.kind == "stdio" and self._stdio_users() > 1:
            raise ConfigError(
                f"chardev {chardev.id!r}: stdio is taken by another character device"
            )

    def _add_monitor(self, monitor: MonitorConfig) -> None:
        self._config.monitors.append(monitor)

    def _stdio_users(self) -> int:
        return sum(chardev.kind == "stdio" for chardev in self._config.chardevs)

    def _defaults(self) -> None:
        """Fill in what was not asked for: there is no display, so it goes to the terminal."""
        wants_serial = not self._serials
        wants_monitor = not (self._config.monitors or self._given.each("monitor", "qmp", "mon"))
        terminal_free = not self._stdio_users()
        if wants_serial and wants_monitor and terminal_free:
            self._add_default("serial", "mon:stdio")
        elif wants_serial:
            self._add_default("serial", "stdio" if terminal_free else "null")
        elif wants_monitor and terminal_free:
            self._add_default("monitor", "stdio")

    def _add_default(self, option: str, word: str) -> None:
        values = Values(BY_NAME[option])
        values.word = word
        self._read_user(values)

    def _choose_serial(self) -> str:
        used = [ident for ident in self._serials if ident]
        if len(used) > 1:
            raise ConfigError(
                f"-serial was given {len(self._serials)} times; the board has one serial port"
            )
        return used[0] if used else ""

    def _check_users(self) -> None:
        users: dict[str, list[str]] = {ident: [] for ident in self._ids}
        named = [("-mon", monitor.chardev) for monitor in self._config.monitors]
        if self._config.serial:
            named.append(("-serial", self._config.serial))
        named += vhost_chardevs(self._config) + serial_chardevs(self._config)
        for what, ident in named:
            if ident not in users:
                raise ConfigError(
                    f"{what}: there is no character device with the id {shorten(ident)}"
                )
            users[ident].append(what)
        for ident, uses in users.items():
            limit = MAX_FRONT_ENDS if self._ids[ident].mux else 1
            if len(uses) > limit:
                error = ConfigError(
                    f"chardev {ident!r} is used {len(uses)} times ({', '.join(uses)}); limit {limit}"
                )
                if limit == 1:
                    error.add_note("hint: mux=on lets several front ends share it")
                raise error
            if not uses:
                self._config.warnings.append(f"chardev {ident!r} is used by nothing")
        _name_monitors(self._config)


def _name_monitors(config: Config) -> None:
    """Give each monitor without ``id=`` a name of its own: its chardev's, numbered if that is taken.

    Names must not depend on how a command line is spelled: a monitor's state is found by them.
    """
    seen: set[str] = set()
    for monitor in config.monitors:
        if monitor.id in seen:
            raise ConfigError(f"two monitors have the id {monitor.id!r}")
        if monitor.id:
            seen.add(monitor.id)
        if monitor.pretty and monitor.mode != "control":
            raise ConfigError(f"-mon {monitor.chardev}: pretty=on is for mode=control only")
    for monitor in config.monitors:
        number = 1
        while not monitor.id:
            name = monitor.chardev if number == 1 else f"{monitor.chardev[:120]}-{number}"
            monitor.id = "" if name in seen else name
            number += 1
        seen.add(monitor.id)


def _mode(text: str) -> MonitorMode:
    return "control" if text == "control" else "readline"


def read_chardev(argument: str, warnings: list[str]) -> ChardevConfig:
    """Return what the argument of ``-chardev`` means.

    Args:
        argument: ``KIND,id=ID,...``.
        warnings: Gets a sentence for what is odd.

    Raises:
        ConfigError: an unknown kind or key, a bad value, no id.
    """
    values = Values(BY_NAME["chardev"])
    if read_keys(values, argument, warnings) or not values.text("id"):
        raise ConfigError(f"-chardev {shorten(argument)}: a kind and an id are needed")
    return _chardev(values)


def _chardev(values: Values) -> ChardevConfig:
    kind = _kind(values.variant)
    chardev = ChardevConfig(
        kind=kind,
        ident=values.text("id"),
        path=values.text("path"),
        append=values.flag("append", default=False),
        signal=kind == "stdio" and values.flag("signal", default=True),
        mux=values.flag("mux", default=False),
    )
    if kind == "ringbuf":
        chardev.size = values.number("size", _RING_SIZE)
        if chardev.size.bit_count() != 1:
            raise ConfigError(f"-chardev ringbuf: size={chardev.size} is not a power of 2")
    if kind == "socket":
        _read_socket(values, chardev)
    return chardev


def _read_socket(values: Values, chardev: ChardevConfig) -> None:
    """Fill in what a socket has beside; check what goes together."""
    chardev.server = values.flag("server", default=False)
    chardev.wait = chardev.server and values.flag("wait", default=True)
    chardev.reconnect_ms = values.number("reconnect-ms", 0)
    read_tls(values, chardev)
    if not chardev.server and "wait" in values.given:
        raise ConfigError("-chardev socket: wait= needs server=on")
    if chardev.server and chardev.reconnect_ms:
        raise ConfigError("-chardev socket: reconnect-ms= is for clients, not for server=on")
    tcp = [name for name in _TCP_ONLY if name in values.given]
    if chardev.path and tcp:
        raise ConfigError(f"-chardev socket: {tcp[0]}= is for TCP, path= for a unix socket")
    if chardev.path:
        return
    if "port" not in values.given:
        raise ConfigError("-chardev socket: path= (unix) or port= (TCP) is needed")
    chardev.port = values.number("port", 0)
    if not chardev.port and not chardev.server:
        raise ConfigError("-chardev socket: port=0 is for server=on")
    chardev.host = values.text("host") or "localhost"
    chardev.nodelay = values.flag("nodelay", default=False)
    chardev.family = _family(values)


def _family(values: Values) -> AddressFamily:
    """Return which addresses count: naming one family alone means that one, as with QEMU."""
    ipv4 = values.flag("ipv4", default=not values.flag("ipv6", default=False))
    ipv6 = values.flag("ipv6", default=not values.flag("ipv4", default=False))
    if not (ipv4 or ipv6):
        raise ConfigError("-chardev socket: ipv4=off and ipv6=off leave no addresses")
    return "any" if ipv4 == ipv6 else "ipv4" if ipv4 else "ipv6"


def _kind(text: str) -> ChardevKind:
    kinds: tuple[ChardevKind, ...] = (
        "null", "stdio", "socket", "file", "pty", "pipe", "ringbuf",
    )  # fmt: skip
    return next(kind for kind in kinds if kind == text)


def _short_form(what: str, word: str, ident: str, warnings: list[str]) -> ChardevConfig:
    """Return the chardev that QEMU's short form ``word`` stands for."""
    if word in {"stdio", "null", "pty"}:
        return ChardevConfig(kind=_kind(word), ident=ident, signal=word == "stdio")
    scheme, colon, rest = word.partition(":")
    if colon and rest and scheme in {"file", "pipe"}:
        return ChardevConfig(kind=_kind(scheme), ident=ident, path=rest)  # commas and all
    if colon and rest and scheme == "unix":
        keys, allowed = f"path={rest}", {"path", "server", "wait", "reconnect-ms"}
        return _socket_form(f"{what} {shorten(word)}", keys, allowed, ident, warnings)
    if colon and rest and scheme == "tcp":
        keys = _tcp_keys(f"{what} {shorten(word)}", rest)
        allowed = {*_TCP_ONLY, "server", "wait", "reconnect-ms"}
        return _socket_form(f"{what} {shorten(word)}", keys, allowed, ident, warnings)
    raise ConfigError(f"{what} {shorten(word)} is not known; allowed are {_FORMS}")


def _tcp_keys(what: str, rest: str) -> str:
    """Turn ``HOST:PORT,...`` into keys; an IPv6 address is in brackets."""
    where, comma, options = rest.partition(",")
    host, colon, port = where.rpartition(":")
    if not colon or not port:
        raise ConfigError(f"{what}: HOST:PORT is needed")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return f"host={host},port={port}{comma}{options}"


def _socket_form(
    what: str, keys: str, allowed: set[str], ident: str, warnings: list[str]
) -> ChardevConfig:
    values = Values(BY_NAME["chardev"])
    try:
        asks_help = read_keys(values, f"socket,id={ident},{keys}", warnings)
    except ConfigError as e:
        raise ConfigError(f"{what}: {e}") from e
    if asks_help or values.text("id") != ident or values.given.keys() - allowed - {"id"}:
        names = ", ".join(f"{name}=" for name in sorted(allowed - {"path", "host", "port"}))
        raise ConfigError(f"{what}: only {names} may follow")
    return _chardev(values)
