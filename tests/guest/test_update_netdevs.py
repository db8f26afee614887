"""Back ends stream and dgram over TCP, UDP and handed over descriptors, and clients that connect again."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

import pytest

from harness import PATIENCE, Vm
from net_guest import UPDATES, booted
from wires import ADDRESSES, DgramWire, StreamWire, card

LOCAL = "127.0.0.1"


@pytest.fixture
def kept():
    """Closes at the end what it is given."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


def free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((LOCAL, 0))
        return probe.getsockname()[1]


def listen(address: tuple[str, int] | str) -> socket.socket:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen()
    listener.settimeout(PATIENCE)
    return listener


def events(vm: Vm, name: str, count: int) -> dict[str, dict]:
    """The data of so many events of that name, by the id of their back end."""
    found = [vm.qmp.wait_event(name)["data"] for _ in range(count)]
    return {data["netdev-id"]: data for data in found}


def info(vm: Vm) -> str:
    return vm.qmp.command("human-monitor-command", command_line="info network")


def test_sockets_of_every_kind_stay_and_lose_no_frame_through_20_updates(debian, kept) -> None:
    tcp, udp = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
    listener = kept(listen((LOCAL, 0)))
    datagrams = kept(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    datagrams.bind((LOCAL, 0))
    datagrams.connect((LOCAL, udp))
    stream, theirs = map(kept, socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM))
    dgram, others = map(kept, socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
    inet = f"addr.type=inet,addr.host={LOCAL},addr.port="
    with Vm(
        *debian.arguments(),
        "-netdev", f"stream,id=n1,server=on,{inet}{tcp}", *card(1),
        "-netdev", f"stream,id=n2,{inet}{listener.getsockname()[1]}", *card(2),
        "-netdev", f"stream,id=n3,addr.type=fd,addr.str={theirs.fileno()}", *card(3),
        "-netdev", f"dgram,id=n4,local.type=inet,local.host={LOCAL},local.port={udp},"
        f"remote.type=inet,remote.host={LOCAL},remote.port={datagrams.getsockname()[1]}", *card(4),
        "-netdev", f"dgram,id=n5,local.type=fd,local.str={others.fileno()}", *card(5),
        size=256, pass_fds=(theirs.fileno(), others.fileno()),
    ) as vm:  # fmt: skip
        theirs.close()
        others.close()
        booted(vm, ADDRESSES)
        client = kept(socket.create_connection((LOCAL, tcp)))
        wires = [
            StreamWire(1, client), StreamWire(2, kept(listener.accept()[0])), StreamWire(3, stream),
            DgramWire(4, datagrams), DgramWire(5, dgram),
        ]  # fmt: skip
        said = vm.qmp.wait_event("NETDEV_STREAM_CONNECTED", **{"netdev-id": "n1"})["data"]["addr"]
        port = str(client.getsockname()[1])
        assert said == {"type": "inet", "host": LOCAL, "port": port, "ipv4": True}
        footprint = None
        for n in range(UPDATES):
            for wire in wires:
                wire.begin(n)
            assert vm.update()["status"] == "completed"
            for wire in wires:
                wire.finish()
            assert [wire.answered() for wire in wires] == [n] * len(wires)
            footprint = footprint or vm.footprint()
        assert vm.footprint() == footprint
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):  # it did not connect a second time
            listener.accept()


def test_clients_connect_again_and_updates_find_them_connected_and_waiting(
    debian, kept, tmp_path: Path
) -> None:
    path, port = str(tmp_path / "wire"), free_port(socket.SOCK_STREAM)
    once = kept(listen(str(tmp_path / "once")))
    with Vm(
        *debian.arguments(),
        "-netdev", f"stream,id=n1,addr.type=unix,addr.path={path},reconnect-ms=50", *card(1),
        "-netdev", f"stream,id=n2,addr.type=inet,addr.host={LOCAL},addr.port={port},reconnect-ms=50", *card(2),
        "-netdev", f"stream,id=n3,addr.type=unix,addr.path={once.getsockname()}", *card(3),
        size=256,
    ) as vm:  # fmt: skip
        booted(vm, ADDRESSES)
        gone = [kept(once.accept()[0])]
        once.close()
        assert f"connecting,unix:{path}" in info(vm)
        for ended in ({"n1", "n2", "n3"}, {"n1", "n2"}, {"n1", "n2"}):
            vm.update()
            listeners = [kept(listen(path)), kept(listen((LOCAL, port)))]
            accepted = [kept(listener.accept()[0]) for listener in listeners]
            said = events(vm, "NETDEV_STREAM_CONNECTED", 2)
            assert said["n1"]["addr"] == {"type": "unix", "path": path}
            where = {"type": "inet", "host": LOCAL, "port": str(port), "ipv4": True}
            assert said["n2"]["addr"] == where
            wires = [StreamWire(n, peer) for n, peer in enumerate(accepted, 1)]
            assert all(wire.exchange(1) for wire in wires)
            for wire in wires:
                wire.begin(2)
            vm.update()
            for wire in wires:
                wire.finish()
            assert [wire.answered() for wire in wires] == [2, 2]
            gone += [*listeners, *accepted]
            for each in gone:
                each.close()
            Path(path).unlink()
            assert events(vm, "NETDEV_STREAM_DISCONNECTED", len(ended)).keys() == ended
            gone = []
        vm.update()
        assert info(vm).count("connecting,") == 2
        assert "disconnected,unix:" in info(
            vm
        )  # this one connects once, and its end costs no update
        assert vm.said() == ""


def test_descriptors_named_with_getfd_cross_as_added_back_ends(
    debian, kept, tmp_path: Path
) -> None:
    nobody = f"type=unix,addr.path={tmp_path}/nobody,reconnect-ms=1000"
    stream, one = map(kept, socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM))
    dgram, two = map(kept, socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
    with Vm(
        *debian.arguments(),
        "-netdev", f"stream,id=n1,addr.{nobody}", *card(1),
        "-netdev", f"stream,id=n2,addr.{nobody}", *card(2), size=256,
    ) as vm:  # fmt: skip
        booted(vm, ADDRESSES)
        for name, given in (("one", one), ("two", two)):
            getfd = {"execute": "getfd", "arguments": {"fdname": name}}
            socket.send_fds(vm.qmp.socket, [json.dumps(getfd).encode()], [given.fileno()])
            assert vm.qmp._read() == {"return": {}}
            given.close()
        vm.qmp.command("netdev_del", id="n1")
        vm.qmp.command("netdev_del", id="n2")
        vm.qmp.command("netdev_add", type="stream", id="n1", addr={"type": "fd", "str": "one"})
        vm.qmp.command("netdev_add", type="dgram", id="n2", local={"type": "fd", "str": "two"})
        wires = [StreamWire(1, stream), DgramWire(2, dgram)]
        for n in range(3):
            for wire in wires:
                wire.begin(n)
            vm.update()
            for wire in wires:
                wire.finish()
            assert [wire.answered() for wire in wires] == [n, n]
