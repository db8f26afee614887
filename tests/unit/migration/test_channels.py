"""Where a migration goes: what is understood, and what is said about the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.errors import CommandError
from instar.migration.channels import Address, SocketAddress, parse_uri, resolve


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("file:vm.state", Address("vm.state")),
        ("file:/a/b,offset=4096", Address("/a/b", 4096)),
        ("file:/a,b,offset=0x10", Address("/a,b", 16)),
        ("file:x,offset=4k", Address("x", 4096)),
        ("memfd:", Address("")),
    ],
)
def test_parse_uri_understands(uri: str, address: Address) -> None:
    assert parse_uri(uri) == address
    assert parse_uri(address.uri) == address


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("bogus:1", "unknown migration protocol: bogus:1"),
        ("vm.state", "unknown migration protocol: vm.state"),
        ("file:", "needs a path"),
        ("file:x,offset=-1", "bad offset -1"),
        ("file:x,offset=1z", "bad offset 1z"),
        ("file:x,offset=99999999999999999999", "bad offset"),
        ("memfd:7", "takes nothing after it"),
        ("tcp:0:65536", "port 1 to 65535"),
        ("unix:", "needs the path"),
        ("exec:true", "protocol exec: is not available"),
    ],
)
def test_parse_uri_refuses_with_the_reason(uri: str, text: str) -> None:
    with pytest.raises(CommandError, match=text):
        parse_uri(uri)


@given(st.text())
def test_any_uri_gives_an_address_or_a_command_error(uri: str) -> None:
    try:
        assert parse_uri(uri).uri
    except CommandError as e:
        assert str(e)


FILE = {"transport": "file", "filename": "x", "offset": 5}
UNIX = {"transport": "socket", "type": "unix", "path": "s"}
TCP = {"transport": "socket", "type": "inet", "host": "h", "port": "5"}


@pytest.mark.parametrize(
    ("channels", "address"),
    [
        ([{"channel-type": "main", "addr": FILE}], Address("x", 5)),
        ([{"channel-type": "main", "addr": {"transport": "memfd"}}], Address("")),
        ([{"channel-type": "main", "addr": UNIX}], SocketAddress("s")),
        ([{"channel-type": "main", "addr": TCP}], SocketAddress("", "h", 5)),
    ],
)
def test_resolve_understands_channels(channels, address: Address) -> None:
    assert resolve(None, channels) == (address, None)


@pytest.mark.parametrize(
    ("channels", "text"),
    [
        ([], "no main entry"),
        ([{"channel-type": "cpr", "addr": FILE}], "no main entry"),
        (
            [{"channel-type": "main", "addr": FILE}] * 2,
            "Channel list has more than one main entry",
        ),
        ([{"channel-type": "other"}], "does not accept value 'other'"),
        ([{"channel-type": "main"}], "expected: object"),
        ([{"channel-type": "main", "addr": {"transport": "exec"}}], "not available"),
        ([{"channel-type": "main", "addr": {"transport": "socket"}}], "'type' does not accept"),
        ([{"channel-type": "main", "addr": UNIX | {"path": ""}}], "needs the path"),
        ([{"channel-type": "main", "addr": UNIX | {"path": "x" * 108}}], "108 bytes"),
        ([{"channel-type": "main", "addr": TCP | {"port": "0"}}], "port 1 to 65535"),
        ([{"channel-type": "main", "addr": TCP | {"type": "vsock"}}], "unix and inet are"),
        (
            [{"channel-type": "main", "addr": FILE}, {"channel-type": "cpr", "addr": TCP}],
            "bad cpr channel address; must be unix",
        ),
        ([{"channel-type": "main", "addr": {"transport": "file"}}], "'filename' is missing"),
        ([{"channel-type": "main", "addr": FILE | {"offset": True}}], "expects a size"),
        ([{"channel-type": "main", "addr": {"transport": "x"}}], "does not accept value 'x'"),
    ],
)
def test_resolve_refuses_channels_with_the_reason(channels, text: str) -> None:
    with pytest.raises(CommandError, match=text):
        resolve(None, channels)


def test_resolve_needs_one_of_the_two() -> None:
    with pytest.raises(CommandError, match="need either 'uri' or 'channels' argument"):
        resolve(None, None)
    with pytest.raises(CommandError, match="not both"):
        resolve("memfd:", [])
