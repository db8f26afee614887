"""Options about TLS: credentials, and the sockets that use them."""

from __future__ import annotations

import pytest

from instar.cli.options import Config, parse, to_argv
from instar.errors import ConfigError

SERVER = ["-object", "tls-creds-x509,id=t,dir=/certs,endpoint=server"]
SOCKET = "socket,id=c,port=1,server=on,wait=off"


def config_of(*words: str) -> Config:
    config = parse(["-nodefaults", *words])
    assert isinstance(config, Config)
    return config


def test_credentials_and_sockets_come_back_from_their_words() -> None:
    config = config_of(
        *SERVER, "-chardev", f"{SOCKET},tls-creds=t,reopen-on-cpr=on", "-mon", "c",
        "-object", "tls-creds-x509,id=u,dir=/a,,b,verify-peer=off",
        "-chardev", "socket,id=d,path=/d,tls-creds=u", "-serial", "chardev:d",
    )  # fmt: skip
    assert [(t.id, t.folder, t.server, t.verify_peer) for t in config.tls_creds] == [
        ("t", "/certs", True, True),
        ("u", "/a,b", False, False),
    ]
    assert [(c.tls_creds, c.reopen_on_cpr) for c in config.chardevs] == [("t", True), ("u", False)]
    assert config.warnings == []
    assert parse(to_argv(config)) == config


def test_credentials_that_nobody_uses_are_a_warning() -> None:
    assert config_of(*SERVER).warnings == ["TLS credentials 't' are used by nothing"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-chardev", f"{SOCKET},tls-creds=t"], "No TLS credentials with id 't'"),
        ([*SERVER, "-chardev", "socket,id=c,port=1,tls-creds=t"], "for a client endpoint"),
        ([*SERVER, "-chardev", f"{SOCKET},reopen-on-cpr=on"], "is for tls-creds="),
        ([*SERVER, *SERVER], "two objects have the id 't'"),
        (["-object", "tls-creds-x509,id=t"], "dir"),
        (["-object", "tls-creds-x509,id=t,dir=/c,endpoint=both"], "allowed is client or server"),
        (
            [
                "-object", "tls-creds-x509,id=t,dir=/c", "-chardev", "socket,id=c,path=/c,tls-creds=t",
                "-device", "vhost-user-blk-device,chardev=c",
            ],
            "without server=on, mux=on and tls-creds=",
        ),
    ],
)  # fmt: skip
def test_words_that_cannot_be_are_refused(words, text) -> None:
    with pytest.raises(ConfigError, match=text):
        config_of(*words)
