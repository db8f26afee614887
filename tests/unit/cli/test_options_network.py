"""Network back ends and cards on the command line."""

from __future__ import annotations

import pytest

from instar.cli.options import Config, parse, to_argv
from instar.cli.options.network import parse_netdev
from instar.errors import ConfigError


def parsed(line: str) -> Config:
    result = parse(line.split())
    assert isinstance(result, Config)
    return result


STREAM = "-netdev stream,id=n0,addr.type=unix,addr.path=/s"


@pytest.mark.parametrize(
    "line",
    [
        f"{STREAM},server=on -device virtio-net-device,netdev=n0,mac=02:00:00:00:00:AA",
        f"{STREAM},reconnect-ms=100",
        "-netdev tap,id=n0,ifname=t0,vnet_hdr=off,script=no -device virtio-net-device,netdev=n0,id=nic",
        "-netdev tap,id=n0,queues=4 -device virtio-net-device,netdev=n0,mq=on",
        "-netdev tap,id=n0,fds=7:8:getfd-name -device virtio-net-device,netdev=n0,mq=on",
        "-netdev dgram,id=n0,local.type=inet,local.host=::1,local.port=1,remote.type=inet,remote.host=h,remote.port=2",
        "-netdev dgram,id=n0,local.type=fd,local.str=7",
        "-netdev none,id=n0,queues=2,vnet_hdr=on -device virtio-net-device,netdev=n0,mq=on",
    ],
)  # fmt: skip
def test_to_argv_of_networking_parses_to_an_equal_config(line: str) -> None:
    config = parsed(line)
    assert parsed(" ".join(to_argv(config))) == config


def test_cards_without_an_address_get_the_next_free_one_each() -> None:
    cards = [
        f"-netdev tap,id=n{n} -device virtio-net-device,netdev=n{n}{mac}"
        for n, mac in enumerate(["", ",mac=52:54:00:12:34:57", ""])
    ]
    config = parsed(" ".join(cards))
    assert [card.mac for card in config.devices] == [
        "52:54:00:12:34:56", "52:54:00:12:34:57", "52:54:00:12:34:58",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("-device virtio-net-device,netdev=n0", "netdev=n0: there is no -netdev with that id"),
        (f"{STREAM} {STREAM}", "two netdevs have the id 'n0'"),
        (f"{STREAM} -device virtio-net-device,netdev=n0,mac=01:00:00:00:00:00", "is a multicast address"),
        (f"{STREAM} -device virtio-net-device,netdev=n0,mac=52:54:00:12:34:5g", "is not six hex bytes"),
        (f"{STREAM}{' -device virtio-net-device,netdev=n0' * 2}", "netdev 'n0' is used by two devices"),
        ("-netdev stream,id=n0", "-netdev stream needs addr.type="),
        ("-netdev stream,id=n0,addr.type=unix", "addr.type=unix needs addr.path="),
        (f"{STREAM},addr.port=1", "addr.type=unix does not go with addr.port="),
        ("-netdev stream,id=n0,addr.type=fd,addr.str=7,server=on", "server=on does not go with addr.type=fd"),
        (f"{STREAM},server=on,reconnect-ms=5", "reconnect-ms= is for clients that know an address, not for server=on"),
        ("-netdev stream,id=n0,addr.type=fd,addr.str=7,reconnect-ms=5", "an address, not for addr.type=fd"),
        (f"{STREAM},reconnect-ms=3600001", "reconnect-ms"),
        ("-netdev dgram,id=n0,local.type=unix,local.path=/a", "-netdev dgram needs remote.type="),
        ("-netdev dgram,id=n0,local.type=fd,local.str=7,remote.type=unix", "remote does not go with local.type=fd"),
        ("-netdev dgram,id=n0,local.type=unix,local.path=/a,remote.type=inet,remote.host=h,remote.port=1",
            "local.type and remote.type differ"),
        ("-netdev tap,id=n0,fd=7,ifname=t0", "fd= is a tap that exists: no ifname="),
        ("-netdev tap,id=n0,fds=7:8,queues=2", "fds= is a tap that exists: no queues="),
        ("-netdev tap,id=n0,fd=7,fds=7:8", "fd= and fds= do not go together"),
        ("-netdev tap,id=n0,fds=7:8:9:10:11", "fds= has 5 descriptors, limit 4"),
        ("-netdev tap,id=n0,fds=7::8", "fds=7::8 has an empty or doubled part"),
        ("-netdev tap,id=n0,queues=5", "queues='5': allowed is a whole number from 1 to 4"),
        ("-netdev user,id=n0", "type='user' is not known; allowed are tap, stream, dgram"),
    ],
)  # fmt: skip
def test_networking_that_cannot_be_is_refused_by_name(line: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(line)
    assert text in str(caught.value)


def test_netdev_add_takes_keys_and_json() -> None:
    keys = parse_netdev("stream,id=n0,addr.type=unix,addr.path=/s")
    assert keys == parse_netdev(
        '{"type": "stream", "id": "n0", "addr": {"type": "unix", "path": "/s"}}'
    )
    with pytest.raises(ConfigError, match="needs type= and id="):
        parse_netdev("tap")


def test_netdev_that_nothing_uses_is_a_warning() -> None:
    assert "netdev 'n0' is used by nothing" in parsed(STREAM).warnings


def test_absent_netdev_is_the_same_with_what_is_so_anyway():
    card = "-device virtio-net-device,netdev=n0"
    short, long = (
        parsed(f"-netdev none,id=n0{more} {card}") for more in ("", ",queues=1,vnet_hdr=off")
    )
    assert short.netdevs == long.netdevs
