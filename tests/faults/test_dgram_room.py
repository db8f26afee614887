"""A peer of a dgram back end that is slow: frames wait in order, none is dropped."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from instar.cpr.fds import Fds
from instar.loop import Loop
from instar.netdev import NetSpec
from instar.netdev.dgram import DgramNet

COUNT = 3000


class Card:
    """Sends numbered frames as long as they are taken."""

    def __init__(self, net: DgramNet) -> None:
        self.net = net
        self.sent = 0

    def room(self) -> int:
        return 1

    def deliver(self, frames) -> int:
        return len(frames)

    def drained(self) -> None:
        while self.sent < COUNT and self.net.send(bytes(12), b"%060d" % self.sent):
            self.sent += 1


def unix_pair(tmp_path: Path) -> tuple[dict[str, str], socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    fd = ours.detach()
    os.set_inheritable(fd, True)
    return {"local.type": "fd", "local.str": str(fd)}, theirs


def unix_paths(tmp_path: Path) -> tuple[dict[str, str], socket.socket]:
    theirs = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    theirs.bind(str(tmp_path / "theirs"))
    return {
        "local.type": "unix", "local.path": str(tmp_path / "ours"),
        "remote.type": "unix", "remote.path": str(tmp_path / "theirs"),
    }, theirs  # fmt: skip


@pytest.mark.parametrize("kind", [unix_pair, unix_paths])
def test_peer_that_reads_late_gets_every_frame_in_order(tmp_path: Path, kind) -> None:
    options, theirs = kind(tmp_path)
    loop = Loop()
    net = DgramNet(NetSpec("dgram", "n0", options), loop, lambda _name, _data: None)
    net.open(Fds())
    card = Card(net)
    net.attach(card)
    card.drained()
    assert 0 < card.sent < COUNT  # and the peer's queue is full
    got: list[int] = []
    theirs.settimeout(0)
    while len(got) < COUNT:
        try:
            got.append(int(theirs.recv(100)))
        except BlockingIOError:
            loop.turn(None)
    assert got == list(range(COUNT))
    assert net.dropped == 0
    net.close()
    theirs.close()
