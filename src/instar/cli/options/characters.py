"""Character devices, the serial port and the monitors, with the defaults of a machine without a display."""

from __future__ import annotations

from instar.cli.options.config import ChardevConfig, MonitorConfig
from instar.cli.options.entries import BY_NAME
from instar.cli.options.grammar import Values, read_keys
from instar.errors import ConfigError
from instar.units import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.cli.options.config import ChardevKind, Config, MonitorMode
    from instar.cli.options.grammar import Given

MAX_FRONT_ENDS = 4  # of one mux, as QEMU
_FORMS = "stdio, unix:PATH,server=on,wait=off, file:PATH, null, none, chardev:ID, or mon: and one of them"


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


def _chardev(values: Values) -> ChardevConfig:
    kind = _kind(values.variant)
    server = values.flag("server", default=False)
    if kind == "socket" and not server and "wait" in values.given:
        raise ConfigError("-chardev socket: wait= needs server=on")
    return ChardevConfig(
        kind=kind,
        ident=values.text("id"),
        path=values.text("path"),
        server=server,
        wait=server and values.flag("wait", default=True),
        append=values.flag("append", default=False),
        signal=kind == "stdio" and values.flag("signal", default=True),
        mux=values.flag("mux", default=False),
    )


def _kind(text: str) -> ChardevKind:
    kinds: tuple[ChardevKind, ...] = ("null", "stdio", "socket", "file")
    return next(kind for kind in kinds if kind == text)


def _short_form(what: str, word: str, ident: str, warnings: list[str]) -> ChardevConfig:
    """Return the chardev that QEMU's short form ``word`` stands for."""
    if word in {"stdio", "null"}:
        return ChardevConfig(kind=_kind(word), ident=ident, signal=word == "stdio")
    scheme, colon, rest = word.partition(":")
    if colon and rest and scheme == "file":
        return ChardevConfig(kind="file", ident=ident, path=rest)  # commas and all
    if colon and rest and scheme == "unix":
        return _unix_form(f"{what} {shorten(word)}", rest, ident, warnings)
    raise ConfigError(f"{what} {shorten(word)} is not known; allowed are {_FORMS}")


def _unix_form(what: str, rest: str, ident: str, warnings: list[str]) -> ChardevConfig:
    values = Values(BY_NAME["chardev"])
    try:
        asks_help = read_keys(values, f"socket,id={ident},path={rest}", warnings)
    except ConfigError as e:
        raise ConfigError(f"{what}: {e}") from e
    if asks_help or values.text("id") != ident:
        raise ConfigError(f"{what}: only server= and wait= may follow the path")
    return _chardev(values)
