"""A vhost-user back end that says and writes anything: it is hung up on, and no descriptor is left over."""

import os
import socket
from pathlib import Path
from threading import RLock

import fuzz_paths  # noqa: F401

from instar.cpr.fds import Fds
from instar.testing.hostile import Script
from instar.vhostuser import protocol as p
from instar.vhostuser.frontend import Frontend, Plan
from instar.vhostuser.ring import BYTES
from instar.vhostuser.state import FrontendState, RingState

RINGS = 2
FEATURES = 1 << 32 | p.F_PROTOCOL_FEATURES


class FakeLoop:
    """Keeps what is to be called later."""

    def __init__(self) -> None:
        self.later = []

    def call_threadsafe(self, callback) -> None:
        self.later.append(callback)

    def watch(self, _fd: int, *, readable) -> None:
        del readable

    def unwatch(self, _fd: int) -> None:
        pass

    def call_later(self, _delay_ns: int, callback) -> None:
        del callback


class Board:
    """A front end that was told to go on with a connection, whose other end is ours."""

    def __init__(self, protocol: int) -> None:
        self.fds = Fds()
        mine, self.peer = socket.socketpair()
        self.memory = os.memfd_create("rings", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.memory, RINGS * BYTES)
        self.fds.save("vhost-user/c", 0, mine.detach())
        self.fds.save("vhost-user/c", 1, self.memory)
        asked, self.asks = socket.socketpair()
        self.fds.save("vhost-user/c", 3, asked.detach())
        self.loop = FakeLoop()
        self.faults: list[str] = []
        self.front = Frontend(
            "c",
            "/nowhere",
            RINGS,
            ram=[],
            loop=self.loop,
            lock=RLock(),
            running=lambda: True,
            fds=self.fds,
        )
        self.front.attach(self.serve, self.faults.append, lambda: self.faults.append("changed"))
        rings = [RingState(size=8) for _ in range(RINGS)]
        self.front.load_state(FrontendState(features=FEATURES, protocol=protocol, rings=rings))

    def serve(self) -> None:
        for index in range(RINGS):
            while (used := self.front.take(index)) is not None:
                assert len(used) == 2

    def close(self) -> None:
        self.front.close()
        for callback in self.loop.later:
            callback()
        inflight = self.fds.find("vhost-user/c", 2)
        front = self.front
        for fd in [
            self.memory,
            front._call,
            *front._kicks,
            *([inflight] if inflight >= 0 else []),
        ]:
            os.close(fd)
        front.rings.clear()
        front._map.close()
        self.peer.close()
        self.asks.close()


def fuzz(data: bytes) -> None:
    """Protocol features, what is done, replies and their descriptors, then the bytes of the used rings."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    script = Script(data)
    board = Board(script.number(2) & p.SPOKEN)
    try:
        play(board, script)
    finally:
        board.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def play(board: Board, script: Script) -> None:
    todo = script.bytes(8)
    gifts = [board.memory] * (script.number() % 12)
    said = script.bytes(script.number(2) % 600)
    if said:
        socket.send_fds(board.peer, [said], gifts)
    board.peer.shutdown(socket.SHUT_WR)
    asked = script.bytes(script.number() % 100)
    if asked:
        socket.send_fds(board.asks, [asked], gifts[: script.number() % 3])
    for index in range(RINGS):
        os.pwrite(board.memory, script.bytes(70), index * BYTES + BYTES // 2)
    for step in todo:
        act(board.front, step)
    board.serve()


def act(front: Frontend, step: int) -> None:
    """One thing that a device does with its back end."""
    plans = [Plan(index, 8, 0x8000_0000, [step & 7]) for index in range(RINGS)]
    what = step >> 3
    if what < 8:
        (front.begin if step & 1 else front.go_on)(FEATURES, plans)
    elif what < 12:
        front.drain()
    elif what < 16:
        front.forget()
    elif what < 20:
        front.resume()
    elif what < 24 and front.rings[0].size:
        front.offer(0, step & 7)
        front.kick(0)
    elif what < 26:
        front.write_config(step & 7, b"1")
    elif what < 28:
        front._on_request()
        assert len(state_of(front).heard) <= 1 << 13
    else:
        try:
            assert len(front.read_config(60)) == 60
        except p.BackendError as error:
            assert str(error)


def state_of(front: Frontend) -> FrontendState:
    """The state, as it would cross; of rings that run there is none."""
    return FrontendState() if front._started else front.save_state()


def reply(request: int, body: bytes) -> bytes:
    return p.HEADER.pack(request, p.VERSION | p.REPLY, len(body)) + body


def seeds() -> list[bytes]:
    """Replies as they ought to be, for each order of work."""
    config = reply(p.GET_CONFIG, p.CONFIG.pack(0, 60, 0) + bytes(60))
    bases = b"".join(reply(p.GET_VRING_BASE, p.VRING_STATE.pack(n, 1)) for n in range(RINGS))
    inflight = reply(p.GET_INFLIGHT_FD, p.INFLIGHT.pack(4096, 0, RINGS, 8))
    done = b"".join(reply(n, bytes(8)) for n in (2, 8, 10, 9, 13, 12, 18))
    used = b"\0\0\1\0" + bytes(66)
    made = []
    for spoken, todo, said in (
        (0x220, [210, 255, 209], config), (0x200, [0, 64, 128], bases), (0x1000, [1, 100], inflight + bases),
        (0x1008, [1, 96], done), (0x221, [1, 160, 161, 64, 208, 192], bases), (0x200, [1, 160, 64], bases[:30]),
    ):  # fmt: skip
        head = spoken.to_bytes(2, "little") + bytes(todo).ljust(8, b"\xff")
        asked = p.HEADER.pack(2, p.VERSION | p.NEED_REPLY, 0) + p.HEADER.pack(9, p.VERSION, 4)
        made.append(
            head + b"\1" + len(said).to_bytes(2, "little") + said
            + bytes([len(asked)]) + asked + b"\0" + used * RINGS
        )  # fmt: skip
    return made
