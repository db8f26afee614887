"""Options about programs that serve devices, and programs to start."""

from __future__ import annotations

import pytest

from instar.cli.options import Config, parse, to_argv
from instar.errors import ConfigError

SOCKET = ["-chardev", "socket,id=c,path=/run/c"]
DISK = ["-device", "vhost-user-blk-device,chardev=c"]
AGAIN = ["-chardev", "socket,id=c,path=/run/c,reconnect-ms=20"]


def config_of(*words: str) -> Config:
    config = parse(["-nodefaults", *words])
    assert isinstance(config, Config)
    return config


def test_devices_and_children_come_back_from_their_words():
    config = config_of(
        *AGAIN, "-device", "vhost-user-blk-device,chardev=c,num-queues=4,drain-ms=200",
        "-chardev", "socket,id=d,path=/run/d",
        "-device", "vhost-user-fs-device,chardev=d,tag=my share,id=fs",
        "-child", "name=fs,command=serve --opt a,,b,restart=on-failure",
    )  # fmt: skip
    assert [(child.name, child.command, child.restart) for child in config.children] == [
        ("fs", "serve --opt a,b", "on-failure")
    ]
    assert (config.devices[0].num_queues, config.devices[0].drain_ms) == (4, 200)
    assert [device.slot for device in config.devices] == [0, 1]
    assert parse(to_argv(config)) == config


REFUSED = [
    (DISK, "no character device with the id"),
    (["-chardev", "null,id=c", *DISK], "has to be a socket with path="),
    (["-chardev", "socket,id=c,path=/run/c,server=on,wait=off", *DISK], "has to be a socket with path="),
    ([*SOCKET, *DISK, *DISK], "is used 2 times"),
    ([*SOCKET, *DISK, "-serial", "chardev:c"], "is used 2 times"),
    ([*SOCKET, "-device", "vhost-user-fs-device,chardev=c"], "tag"),
    ([*SOCKET, "-device", f"vhost-user-fs-device,chardev=c,tag={'x' * 37}"], "36"),
    ([*AGAIN, "-device", "vhost-user-fs-device,chardev=c,tag=t"], "has reconnect-ms="),
    ([*SOCKET, "-device", "vhost-user-blk-device,chardev=c,num-queues=17"], "1 to 16"),
    (["-child", "name=a,command=x", "-child", "name=a,command=y"], "two children have the name 'a'"),
    ([word for n in range(17) for word in ("-child", f"name=c{n},command=x")], "limit 16"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "text"), REFUSED)
def test_words_that_cannot_be_are_refused_in_one_sentence(words, text):
    with pytest.raises(ConfigError, match=text):
        config_of(*words)
