"""Terminals by name, TCP, named pipes and reconnecting clients, before and after an update."""

from __future__ import annotations

import os
import select
import socket
import termios
import tty

import pytest
from chardev_side import FrontEnd, Side

from instar.errors import ConfigError, HostError

BLOCK = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def side():
    side = Side()
    yield side
    side.close()


def open_terminal(device) -> int:
    return os.open(device.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)


def read_all(after, read, length):
    """Read so many bytes from a slow host while the program runs."""
    got = b""
    for _ in range(100_000):
        after.turn(1)
        try:
            got += read(65536)
        except BlockingIOError:
            continue
        if len(got) >= length:
            break
    return got


def test_pty_is_raw_and_has_a_name(side) -> None:
    device = side.create("pty")
    assert device.filename == f"pty:{device.path}"
    assert not device.connected
    front = FrontEnd(device)
    terminal = open_terminal(device)
    assert not termios.tcgetattr(terminal)[tty.LFLAG] & (termios.ICANON | termios.ECHO)
    assert not termios.tcgetattr(terminal)[tty.OFLAG] & termios.OPOST
    os.write(terminal, b"\x03\r\n")
    side.until(lambda: len(front.got) == 3)
    assert front.got == b"\x03\r\n"
    device.write(b"hi\n")
    assert os.read(terminal, 99) == b"hi\n"
    os.close(terminal)


def test_pty_without_anybody_takes_output_and_sees_no_end(side) -> None:
    device = side.create("pty")
    front = FrontEnd(device)
    device.write(BLOCK)
    assert device.pending() == 0
    for line in (b"one", b"two"):
        terminal = open_terminal(device)
        os.write(terminal, line)
        os.close(terminal)
        side.until(lambda line=line: front.got.endswith(line))
        side.until(lambda: not device.connected)
    assert front.got == b"onetwo"
    assert front.events == ["opened", "closed", "opened", "closed"]


def test_pty_that_was_left_while_full_does_not_spin(side) -> None:
    device = side.create("pty")
    front = FrontEnd(device, room=0)
    terminal = open_terminal(device)
    device.write(BLOCK)
    side.turn()
    assert device.pending()
    os.close(terminal)
    side.until(lambda: not device.connected)
    assert (device.pending(), front.events[-1]) == (0, "closed")


def test_pty_keeps_name_and_user_over_updates_and_loses_nothing(side) -> None:
    device = side.create("pty")
    FrontEnd(device)
    terminal = open_terminal(device)
    device.write(BLOCK)
    path, after = device.path, side
    got = b""
    for _ in range(20):
        after.turn(2)
        select.select([terminal], [], [], 20)
        got += os.read(terminal, 1000)
        after = after.update(("pty", {}))
        after.front = FrontEnd(after.devices[0])
    assert after.devices[0].path == path
    got += read_all(after, lambda size: os.read(terminal, size), len(BLOCK) - len(got))
    assert got == BLOCK
    os.write(terminal, b"still there?")
    after.until(lambda: after.front.got)
    assert (after.front.got, after.front.events[-1]) == (b"still there?", "drained")
    os.close(terminal)
    after.close()


def test_pty_that_nobody_has_open_keeps_its_name_too(side) -> None:
    path = side.create("pty").path
    after = side.update(("pty", {}))
    front = FrontEnd(after.devices[0])
    with open(path, "wb", buffering=0) as terminal:
        terminal.write(b"x")
        after.until(lambda: front.got)
    assert front.got == b"x"
    after.close()


@pytest.mark.parametrize(("host", "number"), [("", "127.0.0.1"), ("127.0.0.1", "127.0.0.1")])
def test_tcp_server_listens_on_this_machine_and_survives(side, host, number) -> None:
    options = {"host": host or "localhost", "port": 0, "server": True, "family": "ipv4"}
    device = side.create("socket", nodelay=True, **options)
    port = device.address.port
    assert device.filename == f"disconnected:tcp:{options['host']}:{port},server=on"
    FrontEnd(device)
    with socket.create_connection((number, port)) as client:
        side.until(lambda: device.connected)
        assert device._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        device.write(BLOCK)
        after = side.update(("socket", {**options, "port": port}))
        front = FrontEnd(after.devices[0])
        client.sendall(b"there?")
        client.setblocking(False)
        assert read_all(after, client.recv, len(BLOCK)) == BLOCK
        after.until(lambda: front.got)
        assert (front.got, "opened" in front.events) == (b"there?", False)
    after.until(lambda: not after.devices[0].connected)
    with socket.create_connection((number, port)):
        after.until(lambda: after.devices[0].connected)
        assert after.devices[0].connected
    after.close()


def test_tcp_server_of_another_port_is_refused_after_an_update(side) -> None:
    device = side.create("socket", host="127.0.0.1", port=0, server=True)
    other = device.address.port ^ 1
    with pytest.raises(ConfigError, match=f"port {other} differs"):
        side.update(("socket", {"host": "127.0.0.1", "port": other, "server": True}))


def test_tcp_port_in_use_or_name_unknown_is_said(side) -> None:
    device = side.create("socket", host="127.0.0.1", port=0, server=True)
    port = device.address.port
    with pytest.raises(HostError, match=f"cannot listen on 127.0.0.1:{port}: Address already"):
        side.create("socket", "c1", host="127.0.0.1", port=port, server=True)
    with pytest.raises(HostError, match=r"cannot listen on 1\.2\.3\.4\.5:0: "):
        side.create("socket", "c2", host="1.2.3.4.5", port=0, server=True)


def test_client_without_reconnect_says_why_it_cannot_connect(side) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        device = side.create("socket", host="127.0.0.1", port=port)
        assert device.filename == f"tcp:127.0.0.1:{port}"
    with pytest.raises(HostError, match="Connection refused"):
        side.create("socket", "c1", host="127.0.0.1", port=port)


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_client_that_lost_its_server_does_not_fail_an_update(side, family, tmp_path) -> None:
    where = {
        socket.AF_UNIX: str(tmp_path / "s"),
        socket.AF_INET: ("127.0.0.1", 0),
    }[family]
    with socket.create_server(where, family=family) as server:
        bound = server.getsockname()
        options = {
            socket.AF_UNIX: {"path": bound},
            socket.AF_INET: {"host": "127.0.0.1", "port": bound[1]},
        }[family]
        device = side.create("socket", **options)
        FrontEnd(device)
        server.accept()[0].close()
    side.until(lambda: not device.connected)
    after = side.update(("socket", options))
    assert not after.devices[0].connected
    after.close()


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_client_with_reconnect_finds_its_server_again_also_after_an_update(
    side, family, tmp_path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    path = str(tmp_path / "s")
    where, options = {
        socket.AF_UNIX: (path, {"path": path, "reconnect_ms": 10}),
        socket.AF_INET: (
            ("127.0.0.1", port),
            {"host": "127.0.0.1", "port": port, "reconnect_ms": 10},
        ),
    }[family]
    device = side.create("socket", **options)
    front = FrontEnd(device)
    side.turn()
    assert not device.connected
    with socket.create_server(where, family=family) as server:
        side.until(lambda: device.connected)
        peer = server.accept()[0]
        peer.sendall(b"one")
        side.until(lambda: front.got)
        peer.close()
        side.until(lambda: not device.connected)
        after = side.update(("socket", options))
        new = after.devices[0]
        front = FrontEnd(new)
        after.until(lambda: new.connected)
        peer = server.accept()[0]
        newest = after.update(("socket", options))
        newest.devices[0].write(b"two")
        assert newest.devices[0].connected
        assert peer.recv(99) == b"two"
        peer.close()
    assert front.events == ["opened"]
    newest.close()


def test_client_that_is_connecting_at_the_end_leaves_nothing_open() -> None:
    side = Side()
    before = len(os.listdir("/proc/self/fd"))
    side.create("socket", host="127.0.0.1", port=9, reconnect_ms=1000)
    side.turn()
    side.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def pipes(tmp_path):
    """Two named pipes; gives the path without ends."""
    os.mkfifo(tmp_path / "p.in")
    os.mkfifo(tmp_path / "p.out")
    return str(tmp_path / "p")


def test_pipe_users_come_and_go_and_nothing_is_lost_over_updates(side, pipes) -> None:
    device = side.create("pipe", path=pipes)
    assert device.filename == f"pipe:{pipes}"
    front = FrontEnd(device)
    for word in (b"one", b"two"):
        with open(f"{pipes}.in", "wb", buffering=0) as writer:
            writer.write(word)
        side.until(lambda word=word: front.got.endswith(word))
    device.write(BLOCK)
    after = side
    for _ in range(20):
        after = after.update(("pipe", {"path": pipes}))
    reader = os.open(f"{pipes}.out", os.O_RDONLY | os.O_NONBLOCK)
    assert read_all(after, lambda size: os.read(reader, size), len(BLOCK)) == BLOCK
    os.close(reader)
    assert (front.got, front.events) == (b"onetwo", [])
    after.close()


def test_one_pipe_serves_both_ways(side, tmp_path) -> None:
    os.mkfifo(tmp_path / "p")
    device = side.create("pipe", path=str(tmp_path / "p"))
    device.write(b"out")
    with open(tmp_path / "p", "rb", buffering=0) as reader:
        assert reader.read(3) == b"out"
    after = side.update(("pipe", {"path": str(tmp_path / "p")}))
    front = FrontEnd(after.devices[0])
    with open(tmp_path / "p", "wb", buffering=0) as writer:
        writer.write(b"in")
    after.until(lambda: front.got)
    assert front.got == b"in"
    after.close()


def test_pipe_that_is_not_there_says_so_and_leaves_nothing_open(side, tmp_path) -> None:
    with pytest.raises(HostError, match="p: No such file"):
        side.create("pipe", path=str(tmp_path / "p"))
    os.mkfifo(tmp_path / "p.in")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(HostError, match=r"p\.out: No such file"):
        side.create("pipe", path=str(tmp_path / "p"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_file_without_append_is_not_truncated_by_an_update_that_lost_it(side, tmp_path) -> None:
    (tmp_path / "log").write_bytes(b"before\n")
    after = Side(resumed=True)
    after.create("file", path=str(tmp_path / "log")).write(b"after\n")
    assert (tmp_path / "log").read_bytes() == b"before\nafter\n"
    after.close()


def test_ringbuf_keeps_its_content_over_twenty_updates(side) -> None:
    after = side
    after.create("ringbuf", size=1024).write(BLOCK + b"end")
    for _ in range(20):
        after = after.update(("ringbuf", {"size": 1024}))
    ring = after.devices[0]
    assert ring.take(1021) == BLOCK[-1021:]
    assert ring.take(9) == b"end"
    assert ring.take(9) == b""


def test_pty_of_a_closed_device_is_gone(side) -> None:
    device = side.create("pty")
    terminal = open_terminal(device)
    device.close()
    poller = select.poll()
    poller.register(terminal, select.POLLIN)
    assert poller.poll(0)[0][1] & select.POLLHUP
    os.close(terminal)
