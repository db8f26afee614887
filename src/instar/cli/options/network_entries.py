"""The table rows of networking."""

from __future__ import annotations

from instar.cli.options.table import Key, Option

_ID = Key("id", "id", "name of this network back end", required=True)
_PATH_LIMIT = 107  # bytes, sun_path without its NUL
_MAX_RECONNECT_MS = 3_600_000  # an hour, as of character devices


def _address(prefix: str, what: str, *, kinds: tuple[str, ...]) -> tuple[Key, ...]:
    """Return the keys of one address."""
    keys = [
        Key(f"{prefix}.type", "choice", what, choices=kinds),
        Key(f"{prefix}.path", "text", "of type unix: the socket's path", low=1, high=_PATH_LIMIT),
        Key(f"{prefix}.host", "text", "of type inet: name or address", low=1, high=255),
        Key(f"{prefix}.port", "int", "of type inet: port", high=65535),
    ]
    if "fd" in kinds:
        help_text = "of type fd: an inherited descriptor's number, or its name given with getfd"
        keys.append(Key(f"{prefix}.str", "text", help_text, low=1, high=255))
    return tuple(keys)


NETDEV_OPTION = Option(
    "netdev", "typed", "where the frames of a network card go", group="Back ends",
    metavar="[type=]KIND,id=ID", repeat="list", implied="type", json=True,
    variants={
        "tap": (_ID,
            Key("ifname", "text", "interface to make or join", low=1, high=15,
                default="a free name"),
            Key("fd", "text", "an open tap instead: an inherited descriptor's number, or its name given with getfd",
                low=1, high=255),
            Key("queues", "int", "queues of the interface, for a card with mq=on", low=1, high=4, default="1"),
            Key("fds", "text", "up to 4 open queues of one interface instead, each as fd, with colons between them",
                low=1, high=1023),
            Key("vnet_hdr", "flag", "leave checksums and segmentation to the other side", default="on"),
            Key("script", "choice", "no program is run for the interface", choices=("no",),
                default="no"),
            Key("downscript", "choice", "as script", choices=("no",), default="no"),
        ),
        "stream": (_ID,
            Key("server", "flag", "listen there; off: connect", default="off"),
            Key("reconnect-ms", "int", "a client tries again after so many ms, also at the start; 0: it connects once",
                high=_MAX_RECONNECT_MS, default="0"),
            *_address("addr", "what the stream is", kinds=("unix", "inet", "fd")),
        ),
        "dgram": (_ID,
            *_address("local", "what the socket is", kinds=("unix", "inet", "fd")),
            *_address("remote", "where to; not with local.type=fd", kinds=("unix", "inet")),
        ),
        "none": (_ID,
            Key("queues", "int", "queues of the card that waits for a netdev_add of this id", low=1, high=4,
                default="1"),
            Key("vnet_hdr", "flag", "whether that will be a tap with vnet_hdr", default="off"),
        ),
    },
)  # fmt: skip
NET_DEVICE_KEYS = (
    Key("netdev", "id", "id of a -netdev", required=True),
    Key("mac", "text", "address of the card, as 52:54:00:12:34:56", low=17, high=17,
        default="52:54:00:12:34:56, the next card's one more"),
    Key("mq", "flag", "as many pairs of queues as the netdev has queues", default="off"),
)  # fmt: skip
