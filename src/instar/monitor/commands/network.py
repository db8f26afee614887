"""Network cards and their back ends."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

from instar.errors import CommandError
from instar.monitor.command import (
    CHANGEABLE,
    REQUIRED,
    Arg,
    Hmp,
    Member,
    ObjectType,
    command,
    wire,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from instar.monitor.context import Context, NetCardInfo

    Mode = Literal["normal", "none", "all"]


@dataclass
class NetAddress:
    """Address of a socket."""

    type: Annotated[Literal["unix", "inet", "fd"], Arg("What kind.")]
    path: Annotated[str | None, Arg("Of type unix: the socket's path.")] = None
    host: Annotated[str | None, Arg("Of type inet: name or address.")] = None
    port: Annotated[str | None, Arg("Of type inet: port.")] = None
    str_: Annotated[str | None, Arg("Of type fd: number, or name given with getfd.")] = None


def _member(name: str, kind: object, doc: str, *, default: object = None) -> Member:
    return Member(name, name, kind, Arg(doc), default)


_NETDEV: Final = ObjectType(
    "Netdev",
    (
        _member(
            "type", Literal["tap", "stream", "dgram"], "Kind of the back end.", default=REQUIRED
        ),
        _member("id", str, "Unique name.", default=REQUIRED),
        _member("ifname", str, "tap: interface to make or join."),
        _member("fd", str, "tap: an open one, by number or name given with getfd."),
        _member("fds", str, "tap: several of one interface, with a colon between them."),
        _member("queues", int, "tap: queues of the interface, 1 to 4."),
        _member("vnet_hdr", bool, "tap: leave checksums and segmentation to the other side."),
        _member("server", bool, "stream: listen."),
        _member("reconnect-ms", int, "stream, a client: try again after so many ms; 0: never."),
        _member("addr", NetAddress, "stream: where."),
        _member("local", NetAddress, "dgram: what to bind."),
        _member("remote", NetAddress, "dgram: where to send."),
    ),
)


@dataclass
class RxFilterInfo:
    """What a card lets in."""

    name: Annotated[str, Arg("Name of the card.")]
    promiscuous: Annotated[bool, Arg("Everything.")]
    multicast: Annotated[str, Arg("Multicast frames: normal (by table), none or all.")]
    unicast: Annotated[str, Arg("Unicast frames: normal (by table), none or all.")]
    vlan: Annotated[str, Arg("VLANs: normal (by table), none or all.")]
    broadcast_allowed: Annotated[bool, Arg("Broadcast frames.")]
    multicast_overflow: Annotated[bool, Arg("There were too many multicast addresses.")]
    unicast_overflow: Annotated[bool, Arg("There were too many unicast addresses.")]
    main_mac: Annotated[str, Arg("Address of the card.")]
    vlan_table: Annotated[list[int], Arg("VLANs that the guest listens to.")]
    unicast_table: Annotated[list[str], Arg("More addresses of the card.")]
    multicast_table: Annotated[list[str], Arg("Multicast addresses.")]


def _mode(*, none: bool, everything: bool) -> Mode:
    return "none" if none else "all" if everything else "normal"


def _filter_info(card: NetCardInfo) -> RxFilterInfo:
    state = card.filter()
    bits = int.from_bytes(state.vlans, "little")
    vlans = [vlan for vlan in range(bits.bit_length()) if bits >> vlan & 1]
    return RxFilterInfo(
        name=card.id,
        promiscuous=state.promiscuous,
        multicast=_mode(none=state.no_multicast, everything=state.all_multicast),
        unicast=_mode(none=state.no_unicast, everything=state.all_unicast),
        vlan=_mode(none=not vlans, everything=False) if card.filters_vlans else "all",
        broadcast_allowed=not state.no_broadcast,
        multicast_overflow=state.multicast_overflow,
        unicast_overflow=state.unicast_overflow,
        main_mac=card.mac,
        vlan_table=vlans,
        unicast_table=_addresses(state.unicast),
        multicast_table=_addresses(state.multicast),
    )


def _addresses(table: bytes) -> list[str]:
    return [table[n : n + 6].hex(":") for n in range(0, len(table), 6)]


@command(name="netdev_add", takes=_NETDEV, allowed_in=CHANGEABLE)
def netdev_add(ctx: Context, values: Mapping[str, object]) -> None:
    """Add a network back end; a card that names it uses it at once, and updates keep it.

    -> {"execute": "netdev_add", "arguments": {"type": "stream", "id": "n1",
        "addr": {"type": "unix", "path": "switch"}}}
    <- {"return": {}}
    """
    ctx.network.add(json.dumps(wire(values)))


@command(name="hmp-netdev-add", qmp=False, hmp=Hmp("netdev_add"), allowed_in=CHANGEABLE)
def hmp_netdev_add(
    ctx: Context, *, netdev: Annotated[str, Arg("As after -netdev.", form="rest")]
) -> None:
    """Add a network back end, as -netdev does.

    (instar) netdev_add stream,id=n1,addr.type=unix,addr.path=switch
    """
    ctx.network.add(netdev)


@command(name="netdev_del", hmp=Hmp("netdev_del"), allowed_in=CHANGEABLE)
def netdev_del(
    ctx: Context,
    *,
    id: Annotated[str, Arg("Its name.")],  # noqa: A002 - the word on the wire
) -> None:
    """Delete a network back end; its card goes on as without a cable.

    -> {"execute": "netdev_del", "arguments": {"id": "n0"}}
    <- {"return": {}}

    (instar) netdev_del n0
    """
    ctx.network.remove(id)


@command(name="set_link", hmp=Hmp("set_link"), allowed_in=CHANGEABLE)
def set_link(
    ctx: Context,
    *,
    name: Annotated[str, Arg("Name of a card, or of its back end.")],
    up: Annotated[bool, Arg("Whether there is a link.", complete="switch")],
) -> None:
    """Plug or pull the cable of a network card; updates keep it so.

    -> {"execute": "set_link", "arguments": {"name": "net0", "up": false}}
    <- {"return": {}}

    (instar) set_link net0 off
    """
    cards = [card for card in ctx.network.cards if name in {card.id, card.netdev}]
    if not cards:
        raise CommandError(f"Device '{name[:64]}' not found")
    for card in cards:
        card.set_link(up=up)


@command()
def query_rx_filter(
    ctx: Context, *, name: Annotated[str | None, Arg("Of one card; absent: of all.")] = None
) -> list[RxFilterInfo]:
    """Return which frames the guest wants to receive.

    -> {"execute": "query-rx-filter", "arguments": {"name": "net0"}}
    <- {"return": [{"name": "net0", "promiscuous": true, "multicast": "normal", "unicast": "normal",
        "vlan": "all", "broadcast-allowed": true, "multicast-overflow": false, "unicast-overflow": false,
        "main-mac": "52:54:00:12:34:56", "vlan-table": [], "unicast-table": [], "multicast-table": []}]}
    """
    cards = [card for card in ctx.network.cards if name in {None, card.id}]
    if name is not None and not cards:
        raise CommandError(f"invalid net client name: {name[:64]}")
    return [_filter_info(card) for card in cards]


@command(name="info-network", qmp=False, hmp=Hmp("info network"))
def info_network(ctx: Context) -> str:
    r"""Show network cards and their back ends.

    (instar) info network
    net0: index=0,type=nic,model=virtio-net-device,macaddr=52:54:00:12:34:56
     \ n0: index=0,type=stream,connected,unix:switch
    """
    lines: list[str] = []
    used: set[str] = set()
    backends = {backend.id: backend for backend in ctx.network.backends}
    for card in ctx.network.cards:
        down = "" if card.link else ",link=down"
        lines.append(f"{card.id}: index=0,type=nic,model={card.model},macaddr={card.mac}{down}")
        backend = backends.get(card.netdev)
        if backend is not None:
            used.add(backend.id)
            lines.append(f" \\ {backend.id}: index=0,type={backend.kind},{backend.info}")
    for ident, backend in backends.items():
        if ident not in used:
            lines.append(f"{ident}: index=0,type={backend.kind},{backend.info}")
    return "".join(f"{line}\n" for line in lines)
