"""Devices that other programs serve, and programs to start: what belongs together."""

from __future__ import annotations

from instar.cli.options.config import (
    DRAIN_MS,
    ChildConfig,
    VhostUserBlkConfig,
    VhostUserFsConfig,
)
from instar.cli.options.grammar import where
from instar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.cli.options.config import ChardevConfig, Config
    from instar.cli.options.grammar import Given, Values

MAX_CHILDREN: Final = 16


def read_children(given: Given, config: Config) -> None:
    """Fill ``children``.

    Raises:
        ConfigError: a duplicate name, too many.
    """
    for values in given.each("child"):
        name = values.text("name")
        if any(name == other.name for other in config.children):
            raise ConfigError(f"two children have the name {name!r}")
        restart = values.text("restart", "never")
        config.children.append(
            ChildConfig(
                name=name,
                command=values.text("command"),
                restart="on-failure" if restart == "on-failure" else "never",
            )
        )
    if len(config.children) > MAX_CHILDREN:
        raise ConfigError(f"-child was given {len(config.children)} times; limit {MAX_CHILDREN}")


def vhost_device(values: Values, slot: int) -> VhostUserBlkConfig | VhostUserFsConfig | None:
    """Return what ``-device vhost-user-...`` says; None if it is another device.

    Raises:
        ConfigError: a tag that does not fit.
    """
    ident, chardev = values.text("id"), values.text("chardev")
    if values.variant == VhostUserBlkConfig.driver:
        return VhostUserBlkConfig(
            slot=slot,
            chardev=chardev,
            ident=ident,
            drain_ms=values.number("drain-ms", DRAIN_MS),
            num_queues=values.number("num-queues", 1),
        )
    if values.variant != VhostUserFsConfig.driver:
        return None
    tag = values.text("tag")
    if not tag.isprintable():
        raise ConfigError(f"{where(values)}: tag={tag!r} is not printable")
    drain_ms = values.number("drain-ms", DRAIN_MS)
    return VhostUserFsConfig(slot=slot, chardev=chardev, tag=tag, ident=ident, drain_ms=drain_ms)


def vhost_chardevs(config: Config) -> list[tuple[str, str]]:
    """Return (user, chardev id) of devices that other programs serve, after checking them.

    Raises:
        ConfigError: it is not a unix socket to connect to.
    """
    chardevs = {chardev.id: chardev for chardev in config.chardevs}
    found: list[tuple[str, str]] = []
    for device in config.devices:
        if isinstance(device, VhostUserBlkConfig | VhostUserFsConfig):
            found.append((f"-device {device.driver}", device.chardev))
            chardev = chardevs.get(device.chardev)
            if chardev is not None:
                _check_chardev(device, chardev)
    return found


def _check_chardev(device: VhostUserBlkConfig | VhostUserFsConfig, chardev: ChardevConfig) -> None:
    if (
        chardev.kind != "socket"
        or not chardev.path
        or chardev.server
        or chardev.mux
        or chardev.tls_creds
    ):
        raise ConfigError(
            f"-device {device.driver}: chardev {device.chardev!r} has to be a socket with path= "
            "where the other program listens, without server=on, mux=on and tls-creds="
        )
    if isinstance(device, VhostUserFsConfig) and chardev.reconnect_ms:
        raise ConfigError(
            f"-device {device.driver}: chardev {device.chardev!r} has reconnect-ms=, but another program would not "
            "know the files that the guest has open"
        )
