"""From checked values to the Config: defaults, relations between options, references."""

from __future__ import annotations

from time import gmtime, strftime

from instar.cli.options.characters import Characters
from instar.cli.options.config import (
    MAX_CPUS,
    PANIC_ACTIONS,
    WATCHDOG_ACTIONS,
    ActionConfig,
    AddFdConfig,
    Config,
    IcountConfig,
    RtcConfig,
    SmpConfig,
)
from instar.cli.options.confine import read_confinement
from instar.cli.options.daemons import read_children
from instar.cli.options.incoming import CPR, incoming_uri
from instar.cli.options.network import check_cards, read_netdevs
from instar.cli.options.processors import read_processors
from instar.cli.options.storage import choose_memory, read_blocks, read_devices, read_objects
from instar.errors import ConfigError
from instar.units import parse_int, shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.cli.options.config import RtcBase, RtcClock
    from instar.cli.options.grammar import Given, Values

_AUTO_SHIFT = 3  # 8 ns an instruction, where QEMU's adaptive clock begins
_HEX = frozenset("0123456789abcdef")
_MAX_SEED = (1 << 64) - 1
_DATE = "%Y-%m-%dT%H:%M:%S"


def resolve(given: Given) -> Config:
    """Return the Config of a whole command line.

    Raises:
        ConfigError: options that contradict each other or name what is not there.
    """
    config = Config()
    config.warnings = given.warnings
    _read_machine(given, config)
    _read_boot(given, config)
    _read_process(given, config)
    read_objects(given, config)
    choose_memory(given, config)
    read_blocks(given, config)
    read_netdevs(given, config)
    read_devices(given, config)
    check_cards(config)
    read_children(given, config)
    read_confinement(given, config)
    Characters(given, config).read()
    return config


def _read_machine(given: Given, config: Config) -> None:
    read_processors(given, config)
    config.smp = _smp(given.one("smp"))
    config.rtc = _rtc(given.one("rtc"))
    if given.has("icount"):
        icount = given.one("icount")
        shift = icount.text("shift")
        config.icount = IcountConfig(
            shift=_AUTO_SHIFT if shift == "auto" else int(shift),
            sleep=icount.flag("sleep", default=True),
        )
    if given.has("seed"):
        config.seed = _seed(given.one("seed").word)
    if given.has("uuid"):
        config.uuid = _uuid(given.one("uuid").word)
    names = given.one("name")
    config.name = names.text("guest")
    config.process_name = names.text("process")


def _smp(values: Values) -> SmpConfig:
    """Complete the topology: what is not given is 1, cores take the rest."""
    sockets = values.number("sockets", 1)
    threads = values.number("threads", 1)
    cores = values.number("cores", 0)
    cpus = values.number("cpus", 0)
    maxcpus = values.number("maxcpus", 0) or cpus or sockets * max(cores, 1) * threads
    cores = cores or max(1, maxcpus // (sockets * threads))
    cpus = cpus or maxcpus
    if sockets * cores * threads != maxcpus:
        raise ConfigError(
            f"-smp: sockets={sockets} * cores={cores} * threads={threads} is "
            f"{sockets * cores * threads}, not maxcpus={maxcpus}"
        )
    if cpus > maxcpus:
        raise ConfigError(f"-smp: cpus={cpus} is more than maxcpus={maxcpus}")
    if maxcpus > MAX_CPUS:
        raise ConfigError(f"-smp: {maxcpus} harts; the board has at most {MAX_CPUS}")
    return SmpConfig(cpus=cpus, maxcpus=maxcpus, sockets=sockets, cores=cores, threads=threads)


def _actions(values: Values) -> ActionConfig:
    actions = ActionConfig()
    for panic in PANIC_ACTIONS:
        if panic == values.text("panic"):
            actions.panic = panic
    for watchdog in WATCHDOG_ACTIONS:
        if watchdog == values.text("watchdog"):
            actions.watchdog = watchdog
    return actions


def _rtc(values: Values) -> RtcConfig:
    base = values.text("base", "utc")
    clock: RtcClock = "vm" if values.text("clock") == "vm" else "host"
    names: tuple[RtcBase, ...] = ("utc", "localtime")
    for name in names:
        if base == name:
            return RtcConfig(base=name, clock=clock)
    return RtcConfig(base="fixed", start=parse_date(base), clock=clock)


def parse_date(text: str) -> int:
    """Return seconds since the epoch of ``2026-01-31`` or ``2026-01-31T12:00:00`` (UTC).

    Raises:
        ConfigError: not such a date, or before 1970.
    """
    full = text if "T" in text else f"{text}T00:00:00"
    fields = full.replace("T", "-").replace(":", "-").split("-")
    if len(fields) == 6 and all(field.isascii() and field.isdigit() for field in fields):
        year, month, day, hour, minute, second = map(int, fields)
        days = _days_before(year, month) + day - 1
        seconds = ((days * 24 + hour) * 60 + minute) * 60 + second
        if 1970 <= year <= 9999 and 1 <= month <= 12 and format_date(seconds) == full:
            return seconds
    raise ConfigError(
        f"-rtc: base={shorten(text)} is not utc, localtime or a date such as 2026-01-31T12:00:00"
    )


def format_date(seconds: int) -> str:
    """Return the date that :func:`parse_date` reads."""
    return strftime(_DATE, gmtime(seconds))


def _days_before(year: int, month: int) -> int:
    """Return days from 1970-01-01 to the first of the month (Gregorian; the year begins in March)."""
    year -= month <= 2
    months = (month - 3) % 12
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * months + 2) // 5 - 719468


def _seed(word: str) -> int:
    try:
        seed = parse_int(word)
    except ConfigError as e:
        raise ConfigError(f"-seed: {e}") from e
    if not 0 <= seed <= _MAX_SEED:
        raise ConfigError(f"-seed {word}: allowed are 0 to {_MAX_SEED}")
    return seed


def _uuid(word: str) -> str:
    groups = word.lower().split("-")
    if [len(group) for group in groups] != [8, 4, 4, 4, 12] or not _HEX.issuperset(
        "".join(groups)
    ):
        raise ConfigError(f"-uuid {shorten(word)} is not a UUID (8-4-4-4-12 hexadecimal digits)")
    return word.lower()


def _read_boot(given: Given, config: Config) -> None:
    config.kernel = given.one("kernel").word
    config.initrd = given.one("initrd").word
    config.append = given.one("append").word
    for name in ("initrd", "append"):
        if given.has(name) and not config.kernel:
            raise ConfigError(f"-{name} is only allowed with -kernel")
    for name in ("kernel", "initrd", "pidfile"):
        if given.has(name) and not given.one(name).word:
            raise ConfigError(f"-{name} needs the name of a file, not an empty word")
    _read_incoming(given, config)
    config.start_paused = given.has("S")
    config.actions = _actions(given.one("action"))
    config.no_reboot = given.has("no-reboot")
    config.no_shutdown = given.has("no-shutdown")


def _read_incoming(given: Given, config: Config) -> None:
    for values in given.each("incoming"):  # of several for one channel, the last counts
        uri = incoming_uri(values.word)
        if uri.startswith(CPR):
            config.incoming_cpr = uri.removeprefix(CPR)
        else:
            config.incoming = uri
    streams = config.incoming.startswith(("unix:", "tcp:"))
    if config.incoming_cpr and not streams and config.incoming != "defer":
        raise ConfigError(
            "-incoming: a cpr channel needs a main channel beside it: unix:PATH, tcp:HOST:PORT or defer"
        )
    if streams and not config.incoming_cpr:
        raise ConfigError(
            f"-incoming {shorten(config.incoming)}: a socket needs a cpr channel beside it (mode cpr-transfer)"
        )


def _read_process(given: Given, config: Config) -> None:
    config.add_fds = [
        AddFdConfig(
            fd=values.number("fd", 0),
            number=values.number("set", 0),
            opaque=values.text("opaque"),
        )
        for values in given.each("add-fd")
    ]
    config.pidfile = given.one("pidfile").word
    display = given.one("display").word
    if given.has("display") and display != "none":
        raise ConfigError(
            f"-display {shorten(display)}: there is no display; only none is allowed"
        )
