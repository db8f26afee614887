"""chardev-add speaks QAPI and means -chardev; ringbufs are written and read."""

from __future__ import annotations

import base64
import json

import pytest
from monitor_fakes import FakeContext

from instar.cli.options.characters import read_chardev
from instar.monitor import commands
from instar.monitor.qmp import QmpSession

assert commands


@pytest.fixture
def context():
    return FakeContext()


def ask(context, name, **arguments):
    session = QmpSession(context)
    session.feed(b'{"execute": "qmp_capabilities"}')
    session.answer()
    session.feed(json.dumps({"execute": name, "arguments": arguments}).encode())
    return json.loads(session.answer())


UNIX = {"type": "unix", "data": {"path": "/a,b"}}
INET = {"type": "inet", "data": {"host": "h", "port": "44", "ipv4": True}}


@pytest.mark.parametrize(
    ("kind", "data", "argument"),
    [
        ("null", {}, "null,id=c1"),
        ("pty", {}, "pty,id=c1"),
        ("stdio", {}, "stdio,id=c1,signal=on"),
        ("file", {"out": "/f", "append": True}, "file,id=c1,path=/f,append=on"),
        ("pipe", {"device": "/p"}, "pipe,id=c1,path=/p"),
        ("ringbuf", {}, "ringbuf,id=c1,size=65536B"),
        ("memory", {"size": 64}, "ringbuf,id=c1,size=64B"),
        (
            "socket",
            {"addr": UNIX, "wait": False},
            "socket,id=c1,path=/a,,b,server=on,wait=off",
        ),
        (
            "socket",
            {"addr": INET, "server": False, "nodelay": True, "reconnect-ms": 5},
            "socket,id=c1,host=h,port=44,ipv4=on,server=off,nodelay=on,reconnect-ms=5",
        ),
        (
            "socket",
            {"addr": UNIX, "tls-creds": "t", "reopen-on-cpr": True},
            "socket,id=c1,path=/a,,b,server=on,wait=off,tls-creds=t,reopen-on-cpr=on",
        ),
    ],
)
def test_backend_becomes_the_argument_of_the_option(context, kind, data, argument) -> None:
    reply = ask(context, "chardev-add", id="c1", backend={"type": kind, "data": data})
    assert (reply, context.added) == ({"return": {}}, [argument])
    assert read_chardev(argument, []).id == "c1"


@pytest.mark.parametrize(
    ("kind", "data", "text"),
    [
        ("vc", {}, "does not accept value 'vc'"),
        ("pipe", {}, "'backend.data.device' is missing"),
        ("null", {"x": 1}, "'backend.data.x' is unexpected"),
        ("socket", {"addr": UNIX, "wait": True}, "must be false"),
        ("socket", {"addr": {"type": "inet", "data": {"host": "h"}}}, "data.port' is missing"),
    ],
)
def test_backend_that_cannot_be_is_refused(context, kind, data, text) -> None:
    reply = ask(context, "chardev-add", id="c1", backend={"type": kind, "data": data})
    assert text in reply["error"]["desc"]
    assert context.added == []


def test_ringbuf_takes_and_gives_base64(context) -> None:
    data = base64.b64encode(b"\xff\x00").decode()
    ask(context, "ringbuf-read", device="ring0", size=3)
    assert ask(context, "ringbuf-write", device="ring0", data=data, format="base64") == {
        "return": {}
    }
    assert ask(context, "ringbuf-read", device="ring0", size=9, format="base64")["return"] == data


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"device": "nobody", "data": ""}, "Device 'nobody' not found"),
        ({"device": "serial0", "data": ""}, "serial0 is not a ringbuf device"),
        ({"device": "ring0", "data": "?", "format": "base64"}, "is not base64"),
        ({"device": "ring0", "data": "\ud800"}, "surrogate"),
    ],
)
def test_ringbuf_write_that_cannot_be_is_refused(context, arguments, text) -> None:
    assert text in ask(context, "ringbuf-write", **arguments)["error"]["desc"]


def test_size_of_the_terminal_is_told_to_the_front_end(context) -> None:
    events = []
    device = context.chardevs["serial0"]
    device.attach(receive=lambda _data: None, can_receive=lambda: 0, event=events.append)
    size = {"cols": 132, "rows": 43}
    for _ in range(2):
        assert ask(context, "chardev-window-size-changed", id="serial0", **size) == {"return": {}}
    assert (device.terminal_size(), events) == ((132, 43), ["resized"])


@pytest.mark.parametrize(
    ("ident", "cols", "words"),
    [("other", 80, "Chardev 'other' not found"), ("serial0", 65536, "cols")],
)
def test_size_that_cannot_be_told_is_refused(context, ident, cols, words) -> None:
    reply = ask(context, "chardev-window-size-changed", id=ident, cols=cols, rows=24)
    assert words in reply["error"]["desc"]
