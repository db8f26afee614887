"""virtio-vsock between a Debian guest and programs of the host: every byte crosses every update."""

from __future__ import annotations

import hashlib
import socket
import threading
from pathlib import Path

import pytest

from harness import PATIENCE, Vm, connect
from vsock_guest import GUEST_PORT, HOST_PORT, initrd_with_echo

TOTAL = 4 << 20  # bytes each way, at least; more if the updates take longer
PIECE = 30_011


@pytest.fixture(scope="module")
def echo_initrd(debian, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return initrd_with_echo(debian.initrd, tmp_path_factory.mktemp("vsock") / "initrd")


def arguments(debian, initrd: Path, command: str, uds: Path) -> list[str]:
    return [
        "-kernel", debian.kernel, "-initrd", str(initrd),
        "-append", f'console=ttyS0 quiet instar.run="{command}"',
        "-device", f"virtio-vsock-device,guest-cid=3,uds-path={uds}",
    ]  # fmt: skip


def pattern(n: int) -> bytes:
    """The n-th piece of a stream in which no two places look alike."""
    return hashlib.shake_128(n.to_bytes(8, "little")).digest(PIECE)


class Stream:
    """Send the pattern until told to stop, and check that all of it comes back."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.enough = threading.Event()
        self.pieces = 0
        self.checked = 0
        self.ended = False
        self.wrong = ""
        self.threads = [threading.Thread(target=run) for run in (self.send, self.receive)]
        for thread in self.threads:
            thread.start()

    def send(self) -> None:
        while not self.enough.is_set() or self.pieces * PIECE < TOTAL:
            self.peer.sendall(pattern(self.pieces))
            self.pieces += 1
        self.peer.shutdown(socket.SHUT_WR)

    def receive(self) -> None:
        held, n = b"", 0
        while data := self.peer.recv(65536):
            held += data
            while len(held) >= PIECE:
                if held[:PIECE] != pattern(n):
                    self.wrong = f"piece {n} differs"
                    self.peer.close()
                    return
                held, n = held[PIECE:], n + 1
                self.checked = n
        self.ended = not held

    def finish(self) -> None:
        self.enough.set()
        for thread in self.threads:
            thread.join(PATIENCE)


def dial(uds: Path, port: int) -> socket.socket:
    """Connect to a port of the guest as Firecracker's documentation says, until somebody listens there."""
    for _ in range(300):
        peer = connect(uds)
        peer.sendall(b"CONNECT %d\n" % port)
        answer = b""
        while not answer.endswith(b"\n") and (byte := peer.recv(1)):
            answer += byte
        if answer:
            assert answer.startswith(b"OK ")
            assert int(answer[3:]) >= 1 << 30
            return peer
        peer.close()
        threading.Event().wait(0.1)
    raise AssertionError("nobody in the guest listens")


def test_host_initiated_streams_are_exact_through_20_updates(
    debian, echo_initrd, tmp_path
) -> None:
    uds = tmp_path / "v.sock"
    with Vm(*arguments(debian, echo_initrd, "vsockecho", uds), size=256) as vm:
        vm.console.wait(b"INIT REACHED")
        streams = [Stream(dial(uds, GUEST_PORT)) for _ in range(2)]
        late = connect(uds)
        late.sendall(b"CONN")
        vm.update()
        footprint = vm.footprint()
        for _ in range(19):
            assert vm.update()["status"] == "completed"
        assert vm.footprint() == footprint
        late.sendall(b"ECT %d\nhello" % GUEST_PORT)
        answer = late.makefile("rb")
        assert answer.readline().startswith(b"OK ")
        assert answer.read(5) == b"hello"
        answer.close()
        late.close()
        for stream in streams:
            stream.finish()
            assert (stream.wrong, stream.ended) == ("", True)
            assert stream.checked == stream.pieces
            assert stream.pieces * PIECE >= TOTAL
            stream.peer.close()


def test_guest_initiated_stream_is_exact_through_20_updates(debian, echo_initrd, tmp_path) -> None:
    uds = tmp_path / "v.sock"
    listener = socket.create_server(f"{uds}_{HOST_PORT}", family=socket.AF_UNIX)
    listener.settimeout(PATIENCE)
    with Vm(*arguments(debian, echo_initrd, "vsockecho out", uds), size=256) as vm:
        stream = Stream(listener.accept()[0])
        stream.peer.settimeout(PATIENCE)
        for _ in range(20):
            assert vm.update()["status"] == "completed"
        stream.finish()
        assert (stream.wrong, stream.ended, stream.checked) == ("", True, stream.pieces)
        vm.console.wait(b"RUN status 0")
        stream.peer.close()
    listener.close()


def test_nobody_listens_then_the_connection_is_refused_both_ways(
    debian, echo_initrd, tmp_path
) -> None:
    uds = tmp_path / "v.sock"
    with Vm(*arguments(debian, echo_initrd, "vsockecho out", uds), size=256) as vm:
        vm.console.wait(b"RUN status 1")
        peer = connect(uds)
        peer.sendall(b"CONNECT 9\n")
        assert peer.recv(16) == b""
        peer.close()
        other = connect(uds)
        other.sendall(b"x" * 32)  # no line is that long
        assert other.recv(16) == b""
        other.close()


def test_connections_that_a_snapshot_cannot_keep_are_reset_in_the_guest(
    debian, echo_initrd, tmp_path
) -> None:
    uds = tmp_path / "v.sock"
    saved = f"file:{tmp_path}/saved"
    with socket.create_server(f"{uds}_{HOST_PORT}", family=socket.AF_UNIX) as listener:
        listener.settimeout(PATIENCE)
        with Vm(*arguments(debian, echo_initrd, "vsockecho out", uds), size=256) as vm:
            peer = listener.accept()[0]
            peer.sendall(b"hello")
            assert peer.recv(5, socket.MSG_WAITALL) == b"hello"
            vm.qmp.command(
                "migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}]
            )
            vm.qmp.command("migrate", uri=saved)
            vm.qmp.wait_event("MIGRATION", status="completed")
        peer.close()
    with Vm(
        *arguments(debian, echo_initrd, "vsockecho out", uds), "-incoming", saved, size=256
    ) as vm:
        vm.console.wait(b"RUN status 1")
