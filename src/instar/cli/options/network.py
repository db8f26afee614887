"""Network back ends and cards: what belongs together, and what the addresses are."""

from __future__ import annotations

from instar.cli.options.config import NetdevConfig, VirtioNetConfig
from instar.cli.options.entries import BY_NAME
from instar.cli.options.grammar import Values, read_keys, where
from instar.errors import ConfigError
from instar.netdev.spec import ABSENT
from instar.units import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.cli.options.config import Config
    from instar.cli.options.grammar import Given

_FIRST_MAC: Final = 0x5254_0012_3456  # QEMU's
_NEEDS: Final = {"unix": ("path",), "inet": ("host", "port"), "fd": ("str",)}
MAX_QUEUES: Final = 4  # of a tap, as many as a card has pairs
_PARTS: Final = ("path", "host", "port", "str")
_SO_ANYWAY: Final = {("queues", "1"), ("vnet_hdr", "off")}  # of kind none


def read_netdevs(given: Given, config: Config) -> None:
    """Fill ``netdevs``.

    Raises:
        ConfigError: a duplicate id, an address with the wrong parts.
    """
    for values in given.each("netdev"):
        netdev = _netdev(values)
        if any(netdev.id == other.id for other in config.netdevs):
            raise ConfigError(f"two netdevs have the id {netdev.id!r}")
        config.netdevs.append(netdev)


def parse_netdev(text: str) -> NetdevConfig:
    """Return what the argument of ``netdev_add`` means: a list of keys, or a JSON object.

    Raises:
        ConfigError: a key or value is not as it has to be.
    """
    values = Values(BY_NAME["netdev"])
    if read_keys(values, text, []) or not values.text("id"):
        raise ConfigError("netdev_add needs type= and id=")
    return _netdev(values)


def check_cards(config: Config) -> None:
    """Check what network cards name, and give those without an address one.

    Raises:
        ConfigError: an unknown or twice used netdev, an address that is none.
    """
    netdevs = {netdev.id for netdev in config.netdevs}
    cards = [device for device in config.devices if isinstance(device, VirtioNetConfig)]
    used: set[str] = set()
    for card in cards:
        if card.netdev not in netdevs:
            raise ConfigError(
                f"-device {card.driver}: netdev={card.netdev}: there is no -netdev with that id"
            )
        if card.netdev in used:
            raise ConfigError(f"netdev {card.netdev!r} is used by two devices")
        used.add(card.netdev)
        card.mac = _checked_mac(card) if card.mac else ""
    taken = {card.mac for card in cards}
    free = (f"{_FIRST_MAC + n:012x}" for n in range(len(cards) * 2))
    for card in cards:
        while not card.mac:
            mac = bytes.fromhex(next(free)).hex(":")
            card.mac = "" if mac in taken else mac
    config.warnings += [f"netdev {x!r} is used by nothing" for x in sorted(netdevs - used)]


def _netdev(values: Values) -> NetdevConfig:
    options = {
        key: ("on" if value else "off") if isinstance(value, bool) else str(value)
        for key, value in values.given.items()
        if key != "id"
    }
    if values.variant == "stream":
        _check_stream(values)
    elif values.variant == "dgram":
        _check_address(values, "local")
        by_fd = values.text("local.type") == "fd"
        if not by_fd:
            _check_address(values, "remote")
            if values.text("local.type") != values.text("remote.type"):
                raise ConfigError(f"{where(values)}: local.type and remote.type differ")
        elif any(key.startswith("remote.") for key in values.given):
            raise ConfigError(f"{where(values)}: remote does not go with local.type=fd")
    elif values.variant == "tap":
        _check_tap(values, options)
    elif (
        values.variant == ABSENT
    ):  # as the machine that runs tells of it: without what is so anyway
        options = {k: v for k, v in options.items() if (k, v) not in _SO_ANYWAY}
    return NetdevConfig(kind=values.variant, ident=values.text("id"), options=options)


def _check_tap(values: Values, options: dict[str, str]) -> None:
    given = [key for key in ("fd", "fds") if key in options]
    if len(given) > 1:
        raise ConfigError(f"{where(values)}: fd= and fds= do not go together")
    for key in given:
        for other in ("ifname", "queues"):
            if other in options:
                raise ConfigError(f"{where(values)}: {key}= is a tap that exists: no {other}=")
    names = options.get("fds", "0").split(":")
    if len(names) > MAX_QUEUES:
        raise ConfigError(
            f"{where(values)}: fds= has {len(names)} descriptors, limit {MAX_QUEUES}"
        )
    if "" in names or len(set(names)) != len(names):
        raise ConfigError(f"{where(values)}: fds={options['fds']} has an empty or doubled part")


def _check_stream(values: Values) -> None:
    _check_address(values, "addr")
    server, by_fd = values.flag("server", default=False), values.text("addr.type") == "fd"
    if server and by_fd:
        raise ConfigError(f"{where(values)}: server=on does not go with addr.type=fd")
    if values.number("reconnect-ms", 0) and (server or by_fd):
        raise ConfigError(
            f"{where(values)}: reconnect-ms= is for clients that know an address, not for "
            + ("server=on" if server else "addr.type=fd")
        )


def _check_address(values: Values, prefix: str) -> None:
    """Check that an address has the parts of its type, and no others."""
    kind = values.text(f"{prefix}.type")
    if not kind:
        raise ConfigError(f"{where(values)} needs {prefix}.type=")
    for part in _PARTS:
        key, wanted = f"{prefix}.{part}", part in _NEEDS[kind]
        if wanted != (key in values.given):
            verb = "needs" if wanted else "does not go with"
            raise ConfigError(f"{where(values)}: {prefix}.type={kind} {verb} {key}=")


def _checked_mac(card: VirtioNetConfig) -> str:
    groups = card.mac.lower().replace("-", ":").split(":")
    hexadecimal = set("0123456789abcdef").issuperset("".join(groups))
    if [len(group) for group in groups] != [2] * 6 or not hexadecimal:
        raise ConfigError(f"-device {card.driver}: mac={shorten(card.mac)} is not six hex bytes")
    if int(groups[0], 16) & 1:
        raise ConfigError(f"-device {card.driver}: mac={card.mac} is a multicast address")
    return ":".join(groups)
