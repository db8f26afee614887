"""Back ends that lie or die stop their device alone; one that keeps its own list of requests is served."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from harness import PATIENCE, PROGRAM, Vm
from instar.vhostuser import protocol as p

VERSION_1 = 1 << 32
MEMORY = (
    "-m", "16M", "-object", "memory-backend-memfd,id=ram0,size=16M", "-machine", "memory-backend=ram0",
)  # fmt: skip


def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Peer(threading.Thread):
    """A back end on ``path`` that answers by table; a value may be bytes, or None to hang up."""

    def __init__(self, path: Path, **answers) -> None:
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.requests: list[int] = []
        self.fds: dict[int, list[int]] = {}
        self.inflight = os.memfd_create("inflight")
        os.ftruncate(self.inflight, 4096)
        features = p.U64.pack(VERSION_1 | p.F_PROTOCOL_FEATURES)
        protocol = p.U64.pack(p.P_CONFIG | p.P_INFLIGHT_SHMFD)
        self.answers: dict[int, bytes | None] = {
            p.GET_FEATURES: features,
            p.GET_PROTOCOL_FEATURES: protocol,
            p.GET_CONFIG: p.CONFIG.pack(0, 60, 0) + (8).to_bytes(8, "little") + bytes(52),
            p.GET_VRING_BASE: p.VRING_STATE.pack(0, 0),
            p.GET_INFLIGHT_FD: p.INFLIGHT.pack(4096, 0, 1, 256),
        } | {getattr(p, name): value for name, value in answers.items()}
        self.start()

    def run(self) -> None:
        try:
            self.connection, _ = self.listener.accept()
        except OSError:  # nobody came
            return
        with self.connection, contextlib.suppress(ConnectionError):
            self.serve(self.connection)

    def serve(self, connection: socket.socket) -> None:
        while True:
            header, fds, _, _ = socket.recv_fds(
                connection, p.HEADER.size, p.MAX_FDS, socket.MSG_WAITALL
            )
            if not header:
                return
            request, _, size = p.HEADER.unpack(header)
            if size:
                connection.recv(size, socket.MSG_WAITALL)
            self.requests.append(request)
            self.fds.setdefault(request, []).extend(fds)
            if request not in self.answers:
                continue
            answer = self.answers[request]
            if answer is None:
                return
            reply = p.HEADER.pack(request, p.VERSION | p.REPLY, len(answer)) + answer
            fds = [self.inflight] if request == p.GET_INFLIGHT_FD else []
            socket.send_fds(connection, [reply], fds)

    def hang_up(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)

    def spoil_used_index(self) -> None:
        """Claim in our ring, the last region of the memory table, that a thousand chains were used; and call."""
        os.pwrite(self.fds[p.SET_MEM_TABLE][-1], (1000).to_bytes(2, "little"), 4096 + 2)
        os.eventfd_write(self.fds[p.SET_VRING_CALL][-1], 1)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.join()
        for fd in [fd for fds in self.fds.values() for fd in fds]:
            os.close(fd)
        os.close(self.inflight)


@pytest.fixture
def peer(tmp_path: Path):
    made: list[Peer] = []

    def make(**answers) -> Peer:
        made.append(Peer(tmp_path / "socket", **answers))
        return made[-1]

    yield make
    for one in made:
        one.close()


def arguments(folder: Path) -> list[str]:
    path = folder / "socket"
    return ["-chardev", f"socket,id=c,path={path}", "-device", "vhost-user-blk-device,chardev=c"]


REFUSED = [
    ({"GET_FEATURES": p.U64.pack(p.F_PROTOCOL_FEATURES)}, "does not offer virtio 1"),
    ({"GET_FEATURES": p.U64.pack(VERSION_1)}, "does not offer protocol features"),
    ({"GET_FEATURES": b"1234"}, "has 4 bytes, not 8"),
    ({"GET_FEATURES": None}, "hung up in request 1"),
    ({"GET_PROTOCOL_FEATURES": p.U64.pack(0)}, "could not be read"),
    ({"GET_CONFIG": p.CONFIG.pack(0, 8, 0) + bytes(60)}, "could not be read"),
]


@pytest.mark.parametrize(("answers", "text"), REFUSED)
def test_back_end_that_does_not_speak_the_protocol_is_refused_at_the_start(
    tmp_path: Path, peer, answers, text
) -> None:
    peer(**answers)
    done = subprocess.run(
        [PROGRAM, "-nodefaults", *MEMORY, *arguments(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, text in done.stderr) == (3, True), done.stderr


def test_private_ram_is_refused_before_anybody_is_asked(tmp_path: Path, peer) -> None:
    daemon = peer()
    done = subprocess.run(
        [PROGRAM, "-nodefaults", "-m", "16M", *arguments(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, "needs shared RAM" in done.stderr) == (2, True), done.stderr
    assert daemon.requests == []


def test_nobody_who_listens_is_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [PROGRAM, "-nodefaults", *MEMORY, *arguments(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, "cannot connect to" in done.stderr) == (3, True), done.stderr


def test_back_end_that_hangs_up_stops_its_device_alone_and_updates_go_on(
    debian, tmp_path: Path, peer
) -> None:
    daemon = peer()
    with Vm(*debian.arguments("console=ttyS0 quiet"), *arguments(tmp_path), size=256) as vm:
        until(lambda: p.SET_VRING_ENABLE in daemon.requests)
        shared = [p.GET_INFLIGHT_FD, p.SET_INFLIGHT_FD, p.SET_VRING_NUM]
        at = daemon.requests.index(p.GET_INFLIGHT_FD)
        assert daemon.requests[at : at + 3] == shared
        daemon.hang_up()
        until(lambda: "the back end hung up; the device needs a reset" in vm.said())
        assert vm.qmp.command("query-status")["status"] == "running"
        assert vm.update()["status"] == "completed"
        vm.console.wait(b"INIT REACHED")


def test_back_end_that_uses_more_chains_than_there_are_stops_its_device(
    debian, tmp_path: Path, peer
) -> None:
    daemon = peer()
    with Vm(*debian.arguments("console=ttyS0 quiet"), *arguments(tmp_path), size=256) as vm:
        until(lambda: p.SET_VRING_ENABLE in daemon.requests)
        daemon.spoil_used_index()
        until(lambda: "the used index jumped by" in vm.said())
        assert vm.qmp.command("query-status")["status"] == "running"
