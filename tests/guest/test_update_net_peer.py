"""The other end of a stream is a program of ours: frames cut in half by an update, and a peer that lies."""

from __future__ import annotations

import contextlib
import fcntl
import struct
from pathlib import Path

import pytest

from harness import PATIENCE, Vm, connect
from net_guest import booted, shell
from wires import StreamWire

CARD = bytes.fromhex("525400000001")
PEER = bytes.fromhex("525400000009")
GUEST_IP, PEER_IP = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 9))
_ASK = struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1)  # an ARP request for the guest's address
ARP = b"\xff" * 6 + PEER + _ASK + PEER + PEER_IP + bytes(6) + GUEST_IP
ECHOES = 500  # of 1446 bytes: more than a socket takes
FIONREAD = 0x541B
KEEP_ALL = (
    "echo pfifo_fast > /proc/sys/net/core/default_qdisc"  # fq_codel drops what waits for long
)
QUIET = 5.0  # seconds without a frame: the guest has given up sending


@pytest.fixture
def wired(debian, tmp_path: Path):
    path = tmp_path / "wire"
    with Vm(
        *debian.arguments("console=ttyS0 quiet"),
        "-netdev", f"stream,id=n0,server=on,addr.type=unix,addr.path={path}",
        "-device", f"virtio-net-device,netdev=n0,mac={CARD.hex(':')}", size=256,
    ) as vm:  # fmt: skip
        booted(vm, f"{KEEP_ALL}; ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up")
        wire = StreamWire(0, connect(path))
        yield vm, wire, path
        wire.socket.close()


def test_frame_cut_by_updates_arrives_whole(wired) -> None:
    vm, wire, _ = wired
    data = struct.pack("!I", len(ARP)) + ARP
    for cut in (1, 3, 4, 20):
        wire.socket.sendall(data + data[:cut])
        assert wire.reply(0x0806)[6:12] == CARD
        vm.update()
        wire.socket.sendall(data[cut:])
        assert wire.reply(0x0806)[28:32] == GUEST_IP


def test_peer_that_does_not_read_gets_every_frame_in_order_after_updates(wired) -> None:
    vm, wire, _ = wired
    shell(vm.console, f"arp -s 10.0.0.9 {PEER.hex(':')}")
    vm.console.send(f"ping -i 0.001 -s 1400 -c {ECHOES} 10.0.0.9 > /dev/null &\n".encode())
    for _ in range(5):
        vm.update()
        vm.console.pull(0.5)
    backlog = struct.unpack("i", fcntl.ioctl(wire.socket, FIONREAD, bytes(4)))[0]
    assert (
        backlog < ECHOES * 1400
    )  # the socket is full: a frame is out by half, the others are with the guest
    wire.socket.settimeout(QUIET)
    numbers: list[int] = []
    with contextlib.suppress(TimeoutError):
        while len(numbers) < ECHOES:
            numbers.append(int.from_bytes(wire.reply(0x0800)[40:42], "big"))
    assert numbers == list(range(len(numbers)))
    assert (
        len(numbers) * 1446 > backlog
    )  # the socket was full: a frame by half, others with the guest


def test_peer_that_lies_about_a_length_is_hung_up_and_the_next_is_served(wired) -> None:
    vm, wire, path = wired
    wire.socket.sendall(b"\xff" * 64)
    vm.qmp.wait_event("NETDEV_STREAM_DISCONNECTED")
    assert "limit 69632; the connection is closed" in vm.said()
    vm.update()
    again = StreamWire(0, connect(path))
    again.socket.settimeout(PATIENCE)
    again.socket.sendall(struct.pack("!I", len(ARP)) + ARP)
    assert again.reply(0x0806)[6:12] == CARD
    again.socket.close()
