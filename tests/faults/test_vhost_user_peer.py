"""Back ends that lie or die stop their device alone; one that keeps its own list of requests is served."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from harness import PATIENCE, PROGRAM, Vm
from instar.cpr.fds import Fds
from instar.devices.vhost_user_blk import VhostUserBlk
from instar.devices.virtio_mmio import VirtioMmio
from instar.loop import Loop
from instar.memory import AddressSpace, RamBlock
from instar.testing.fakes import RAM_BASE, FakeIrq
from instar.testing.virtio_driver import VirtioDriver
from instar.vhostuser import Frontend
from instar.vhostuser import protocol as p

VERSION_1 = 1 << 32
BASE = 0x1000_1000
SILENCE = b"silence"
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
        self.gifts = 1  # descriptors that come with the list of requests
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
            if not self.answer(connection, request):
                return

    def answer(self, connection: socket.socket, request: int) -> bool:
        """Answer if there is an answer; False to hang up."""
        answer = self.answers.get(request, SILENCE)
        if answer is None:
            return False
        if answer != SILENCE:
            reply = p.HEADER.pack(request, p.VERSION | p.REPLY, len(answer)) + answer
            fds = [self.inflight] * self.gifts if request == p.GET_INFLIGHT_FD else []
            socket.send_fds(connection, [reply], fds)
        return True

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


class Rogue(Peer):
    """Back ends that come one after the other, each with answers and deeds of its own; the last one is right."""

    def __init__(self, path: Path, *ways) -> None:
        self.ways = ways
        self.right = False
        super().__init__(path)

    def run(self) -> None:
        known = dict(self.answers)
        for way in [*self.ways, {}]:
            self.answers = known | way.get("answers", {})
            self.gifts = way.get("gifts", 1)
            self.deed = way.get("deed", lambda _: None)
            self.right = not way
            super().run()

    def serve(self, connection: socket.socket) -> None:
        self.requests.clear()
        super().serve(connection)

    def answer(self, connection: socket.socket, request: int) -> bool:
        if request == p.SET_VRING_ENABLE:
            self.deed(self)
        return super().answer(connection, request)


def say_unasked(peer: Peer) -> None:
    peer.connection.sendall(b"\xff" * 40)


def ask(*, data: bytes, gifts: int = 0):
    def deed(peer: Peer) -> None:
        with socket.socket(fileno=os.dup(peer.fds[p.SET_BACKEND_REQ_FD][-1])) as asking:
            socket.send_fds(asking, [data], [peer.inflight] * gifts)

    return deed


REQUESTS = {p.GET_PROTOCOL_FEATURES: p.U64.pack(p.P_CONFIG | p.P_BACKEND_REQ)}
WAYS = {
    "list of requests has 1099511627776 bytes": {
        "answers": {p.GET_INFLIGHT_FD: p.INFLIGHT.pack(1 << 40, 0, 1, 256)}
    },
    "reply to request 31 has 5 bytes, not 24": {"answers": {p.GET_INFLIGHT_FD: b"short"}},
    "reply to request 31 has 8 descriptors, not 1": {"gifts": 9},
    "hung up in request 31": {"answers": {p.GET_INFLIGHT_FD: None}},
    "request 31 to the back end: no answer in 5 s": {"answers": {p.GET_INFLIGHT_FD: SILENCE}},
    "said what nobody had asked for": {"deed": say_unasked},
    "asked with message 4294967295": {"answers": REQUESTS, "deed": ask(data=b"\xff" * 40)},
    "sent descriptors that nobody had asked for": {
        "answers": REQUESTS, "deed": ask(data=b"\1", gifts=2),
    },
    "the used index jumped by": {"deed": lambda peer: peer.spoil_used_index()},
}  # fmt: skip


class Board:
    """A disk over vhost-user and a guest's driver, without a machine."""

    def __init__(self, path: Path) -> None:
        size = 1 << 20
        ram = os.memfd_create("ram", os.MFD_ALLOW_SEALING)
        os.ftruncate(ram, size)
        space = AddressSpace()
        space.add_ram(
            RAM_BASE, RamBlock("ram", mmap.mmap(ram, size), fd=ram, share=True, adopted=False)
        )
        self.loop = Loop()
        self.frontend = Frontend(
            "c", str(path), 1, ram=space.ram, loop=self.loop, lock=threading.RLock(), running=lambda: True,
            fds=Fds(), quiet_ms=100,
        )  # fmt: skip
        disk = VhostUserBlk(self.frontend, state_id="vhost-user-blk/0")
        self.ends: list[str] = []

        def gone(why: str) -> None:
            self.ends.append(why)
            disk._on_gone(why)

        self.frontend.attach(disk._serve, gone, disk.changed)
        space.add_mmio(
            BASE, 0x1000, VirtioMmio(disk, space.memory, FakeIrq(), "virtio-mmio/0"), "m"
        )
        self.driver = VirtioDriver(space, BASE, RAM_BASE + 0x1000)

    def turn(self) -> None:
        """Serve what there is to serve."""
        self.loop.call_soon(self.loop.quit)
        self.loop.run()

    def is_broken(self) -> bool:
        self.turn()
        return self.driver.needs_reset


def test_back_ends_that_lie_in_every_way_stop_their_device_until_a_right_one_comes(
    tmp_path: Path,
) -> None:
    with contextlib.closing(Rogue(tmp_path / "socket", *WAYS.values())) as rogue:
        board = Board(tmp_path / "socket")
        for text in WAYS:
            board.driver.heap = RAM_BASE + 0x1000
            board.driver.start()
            until(board.is_broken)
            assert text in board.ends[-1]
        board.driver.heap = RAM_BASE + 0x1000
        board.driver.start()
        board.turn()
        assert rogue.right
        assert not board.driver.needs_reset
        board.frontend.close()
