"""Sockets with tls-creds in one process: handshakes that end, stall or fail, and bytes in both directions."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest
from chardev_side import FrontEnd, Side

from instar import log
from instar.chardev import tls_socket
from instar.chardev.tls import TlsCredentials
from instar.errors import ConfigError, HostError
from tls_world import context_of, make_pair, make_world

BLOCK = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def side(monkeypatch):
    monkeypatch.setattr(log._log, "_sites", {})  # each test may say as much as a program
    side = Side()
    yield side
    side.close()


class Client(threading.Thread):
    """A client in a thread of its own: sends, then reads until the end; ``error`` is what stopped it."""

    def __init__(self, path, context, data=b"", want=0):
        super().__init__()
        self.path, self.context, self.data, self.want = path, context, data, want
        self.got, self.error = b"", None
        self.start()

    def run(self):
        plain = socket.socket(socket.AF_UNIX)
        plain.settimeout(20)
        plain.connect(self.path)
        try:
            with (
                plain,
                self.context.wrap_socket(
                    plain, server_hostname="localhost", suppress_ragged_eofs=False
                ) as tls,
            ):
                sender = threading.Thread(target=tls.sendall, args=(self.data,))
                sender.start()
                while len(self.got) < self.want and (data := tls.recv(65536)):
                    self.got += data
                sender.join()
                if (
                    len(self.got) == self.want
                ):  # otherwise the server has ended it: with a word, or recv fails
                    tls.unwrap()
        except OSError as e:
            self.error = e


def serve(side, world, path, **more):
    credentials = TlsCredentials("tls0", str(world), server=True, verify_peer=True)
    return side.create("socket", path=str(path), server=True, tls=credentials, **more)


def until_gone(side, client):
    side.until(lambda: not client.is_alive())
    client.join()


def test_bytes_go_both_ways_and_the_end_is_told(side, world, tmp_path) -> None:
    device = serve(side, world, tmp_path / "s")
    front = FrontEnd(device, room=4 << 20)
    client = Client(str(tmp_path / "s"), context_of(world), BLOCK, len(BLOCK))
    side.until(lambda: front.events == ["opened"])
    device.write(BLOCK)
    until_gone(side, client)
    side.until(lambda: front.events[-1] == "closed")
    assert (client.error, client.got == BLOCK, front.got == BLOCK) == (None, True, True)
    assert (front.events[0], front.events[-1], device.refused) == ("opened", "closed", 0)


def test_front_end_without_room_gets_the_rest_when_it_has(side, world, tmp_path) -> None:
    device = serve(side, world, tmp_path / "s")
    front = FrontEnd(device, room=10)
    client = Client(str(tmp_path / "s"), context_of(world), b"0123456789abcdef", 2)
    side.until(lambda: len(front.got) == 10)
    side.turn()
    front.room = 100
    device.accept_input()
    side.until(lambda: len(front.got) == 16)
    device.write(b"ok")
    until_gone(side, client)
    assert (front.got, client.got) == (b"0123456789abcdef", b"ok")


@pytest.mark.parametrize(
    ("role", "prefix", "text"),
    [
        ("", "", "peer did not return a certificate"),
        ("client", "strange-", "unable to get local issuer certificate"),
    ],
)
def test_peer_with_the_wrong_certificate_is_refused_and_told(
    side, world, tmp_path, capfd, role, prefix, text
) -> None:
    device = serve(side, world, tmp_path / "s")
    front = FrontEnd(device)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(world / "ca-cert.pem")
    if role:
        names = [world / f"{prefix}{role}-{part}.pem" for part in ("cert", "key")]
        context.load_cert_chain(*names)
    client = Client(str(tmp_path / "s"), context, want=1)
    side.until(lambda: device.refused)
    until_gone(side, client)
    assert isinstance(client.error, ssl.SSLError)
    assert front.events == []
    said = capfd.readouterr().err
    assert f"warning: chardev/c0: TLS handshake failed: {text}" in said
    assert "the connection was closed, 1 so far" in said
    good = Client(str(tmp_path / "s"), context_of(world), b"x", 0)
    side.until(lambda: front.got == b"x")
    until_gone(side, good)


def test_client_without_tls_is_refused_before_the_front_end_sees_it(side, world, tmp_path) -> None:
    device = serve(side, world, tmp_path / "s")
    front = FrontEnd(device)
    with socket.socket(socket.AF_UNIX) as plain:
        plain.connect(str(tmp_path / "s"))
        plain.sendall(b'{"execute": "qmp_capabilities"}\n')
        side.until(lambda: device.refused)
    assert (front.events, device.connected) == ([], False)


def test_refusals_are_counted_and_their_messages_limited(side, world, tmp_path, capfd) -> None:
    device = serve(side, world, tmp_path / "s")
    FrontEnd(device)
    for _ in range(50):
        with socket.socket(socket.AF_UNIX) as plain:
            plain.connect(str(tmp_path / "s"))
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            before = device.refused
            side.until(lambda before=before: device.refused > before)
    assert device.refused == 50
    assert capfd.readouterr().err.count("http request") < 20


def test_half_a_handshake_is_hung_up_on_after_a_while(
    side, world, tmp_path, monkeypatch, capfd
) -> None:
    monkeypatch.setattr(tls_socket, "HANDSHAKE_NS", 1_000_000)
    device = serve(side, world, tmp_path / "s")
    front = FrontEnd(device)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.settimeout(20)
        silent.connect(str(tmp_path / "s"))
        silent.sendall(b"\x16\x03\x01\x02\x00\x01")  # a record that never ends
        side.until(lambda: device.refused)
        assert silent.recv(99) == b""
    assert front.events == []
    assert "TLS handshake is not over after 0 s" in capfd.readouterr().err


def test_broken_record_in_a_session_ends_it(side, world, tmp_path, capfd) -> None:
    device = serve(side, world, tmp_path / "s")
    front = FrontEnd(device)
    plain = socket.socket(socket.AF_UNIX)
    plain.connect(str(tmp_path / "s"))
    tls_in, tls_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context_of(world).wrap_bio(tls_in, tls_out, server_hostname="localhost")
    plain.setblocking(False)

    def shake():
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            done = False
        else:
            done = True
        plain.sendall(tls_out.read())
        try:
            tls_in.write(plain.recv(65536))
        except BlockingIOError:
            return done
        return done

    side.until(lambda: shake() and front.events)
    plain.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    side.until(lambda: "closed" in front.events)
    plain.close()
    assert device.refused == 1
    assert "TLS session broken: " in capfd.readouterr().err


def test_session_blocks_updates_and_is_gone_when_the_client_is(side, world, tmp_path) -> None:
    device = serve(side, world, tmp_path / "s")
    FrontEnd(device)
    assert device.update_blocker() == ""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(tmp_path / "s"))
        side.until(device.update_blocker)  # from the first moment of the handshake on
    side.until(lambda: not device.update_blocker())
    client = Client(str(tmp_path / "s"), context_of(world), want=1)
    side.until(lambda: device.connected)
    assert device.update_blocker().startswith("chardev c0: its TLS session cannot cross an update")
    device.disconnect()
    until_gone(side, client)
    assert (device.update_blocker(), client.error) == ("", None)


def test_who_comes_while_an_update_begins_waits_and_is_served_after_it(
    side, world, tmp_path
) -> None:
    device = serve(side, world, tmp_path / "s", reopen_on_cpr=True)
    FrontEnd(device)
    device.begin_update()
    client = Client(str(tmp_path / "s"), context_of(world), b"waited", 2)
    side.turn(20)
    device.leave()
    assert not device.connected
    credentials = TlsCredentials("tls0", str(world), server=True, verify_peer=True)
    options = {"path": str(tmp_path / "s"), "server": True, "tls": credentials}
    after = side.update(("socket", {**options, "reopen_on_cpr": True}))
    front = FrontEnd(after.devices[0])
    after.until(lambda: front.got == b"waited")
    after.devices[0].write(b"ok")
    until_gone(after, client)
    assert client.got == b"ok"
    after.close()


def test_failed_update_lets_clients_in_again(side, world, tmp_path) -> None:
    device = serve(side, world, tmp_path / "s")
    front = FrontEnd(device)
    device.begin_update()
    client = Client(str(tmp_path / "s"), context_of(world), b"x", 0)
    side.turn(20)
    assert not device.connected
    device.end_update()
    side.until(lambda: front.got == b"x")
    until_gone(side, client)


class Server(threading.Thread):
    """A server for several clients one after another; sends what it got back to each."""

    def __init__(self, listener, context, clients):
        super().__init__()
        self.listener, self.context, self.clients = listener, context, clients
        self.errors, self.farewells = [], 0
        self.start()

    def run(self):
        for _ in range(self.clients):
            plain, _ = self.listener.accept()
            plain.settimeout(20)
            try:
                with plain, self.context.wrap_socket(plain, server_side=True) as tls:
                    while data := tls.recv(99):
                        tls.sendall(data)
                    self.farewells += 1
            except OSError as e:
                self.errors.append(e)


def test_client_reconnects_after_an_update(side, world) -> None:
    with socket.create_server(("localhost", 0)) as listener:
        credentials = TlsCredentials("tls0", str(world), server=False, verify_peer=True)
        options = {"host": "localhost", "port": listener.getsockname()[1], "tls": credentials}
        options |= {"reopen_on_cpr": True, "family": "ipv4"}
        server = Server(listener, context_of(world, role="server"), 2)
        device = side.create("socket", **options)
        front = FrontEnd(device)
        side.until(lambda: device.connected)
        device.write(b"one")
        side.until(lambda: front.got == b"one")
        device.begin_update()
        device.leave()
        after = side.update(("socket", options))
        again = FrontEnd(after.devices[0])
        after.until(lambda: again.events == ["opened"])
        after.devices[0].write(b"two")
        after.until(lambda: again.got == b"two")
        after.devices[0].disconnect()
        server.join()
        after.close()
    assert (server.errors, server.farewells) == ([], 2)


def test_client_does_not_talk_to_a_server_of_another_name(side, world, tmp_path, capfd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        credentials = TlsCredentials("tls0", str(world), server=False, verify_peer=True)
        options = {"host": "127.0.0.1", "port": listener.getsockname()[1], "tls": credentials}
        server = Server(listener, context_of(world, role="server"), 1)
        device = side.create("socket", **options)
        side.until(lambda: device.refused)
        server.join()
    assert not device.connected
    assert "IP address mismatch" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ca-cert.pem", "Unable to access credentials {}: No such file or directory"),
        ("server-key.pem", "Unable to access credentials {}: No such file or directory"),
        ("server-cert.pem", "Unable to access credentials {}: No such file or directory"),
    ],
)
def test_credentials_that_are_not_there_are_named(side, world, tmp_path, name, text) -> None:
    for file in world.iterdir():
        if file.name != name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(HostError) as caught:
        serve(side, tmp_path, tmp_path / "s")
    assert str(caught.value) == "TLS credentials tls0: " + text.format(tmp_path / name)
    assert not (tmp_path / "s").exists()


def test_key_of_another_certificate_is_refused(side, world, tmp_path) -> None:
    for file in world.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    make_pair(tmp_path, "server", prefix="other-")
    (tmp_path / "other-server-key.pem").replace(tmp_path / "server-key.pem")
    with pytest.raises(HostError, match=r"server-cert\.pem: key values mismatch"):
        serve(side, tmp_path, tmp_path / "s")


def test_credentials_for_the_other_side_are_refused(side, world, tmp_path) -> None:
    credentials = TlsCredentials("tls0", str(world), server=False, verify_peer=True)
    with pytest.raises(ConfigError, match="Expected TLS credentials for a server endpoint"):
        side.create("socket", path=str(tmp_path / "s"), server=True, tls=credentials)


def test_credentials_that_are_gone_after_an_update_cost_the_clients_alone(
    side, world, tmp_path, capfd
) -> None:
    device = serve(side, world, tmp_path / "s")
    FrontEnd(device)
    credentials = TlsCredentials("tls0", str(tmp_path), server=True, verify_peer=True)
    options = {"path": str(tmp_path / "s"), "server": True, "tls": credentials}
    after = side.update(("socket", options))
    front = FrontEnd(after.devices[0])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        after.until(lambda: after.devices[0].refused)
        assert client.recv(9) == b""
    assert "Unable to access credentials" in capfd.readouterr().err
    assert front.events == []
    after.close()
