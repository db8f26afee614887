"""Notifications by event descriptors: served in the loop, before a save, and looked at again."""

from __future__ import annotations

import os

import pytest

from instar.boards.kicks import Kicks
from instar.errors import HostError


class State:
    def __init__(self) -> None:
        self.ready = True


class Queue:
    def __init__(self) -> None:
        self.state = State()


class Transport:
    """A transport that remembers which queues were notified."""

    def __init__(self, queues: int = 2) -> None:
        self.queues = [Queue() for _ in range(queues)]
        self.served: list[int] = []

    def notify(self, index: int) -> None:
        self.served.append(index)


class Host:
    """The kernel's and the loop's side: ``write`` is what a guest's store does."""

    def __init__(self) -> None:
        self.fds: dict[tuple[int, int], int] = {}
        self.watched: dict[int, object] = {}
        self.locked = 0
        self.bugs: list[BaseException] = []

    def connect(self, gpa: int, size: int, value: int, fd: int) -> None:
        assert size == 4
        self.fds[gpa, value] = fd

    def watch(self, fd: int, *, readable=None) -> None:
        self.watched[fd] = readable

    def lock(self, callback) -> None:
        self.locked += 1
        callback()

    def write(self, gpa: int, value: int) -> int:
        fd = self.fds[gpa, value]
        os.eventfd_write(fd, 1)
        return fd


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def transport():
    return Transport()


@pytest.fixture
def kicks(host, transport):
    made = Kicks(host.connect, host, host.lock, host.bugs.append)
    made.add([(0xFEB0_0000, transport)])
    yield made
    for fd in host.fds.values():
        os.close(fd)


def test_each_queue_has_its_descriptor_at_the_notification_register(host, kicks):
    assert sorted(host.fds) == [(0xFEB0_0050, 0), (0xFEB0_0050, 1)]


def test_kick_is_served_in_the_loop_with_the_lock_held(host, transport, kicks):
    host.watched[host.write(0xFEB0_0050, 1)]()
    assert (transport.served, host.locked) == ([1], 1)


def test_kicks_that_came_together_are_one(host, transport, kicks):
    host.write(0xFEB0_0050, 0)
    host.watched[host.write(0xFEB0_0050, 0)]()
    host.watched[host.fds[0xFEB0_0050, 0]]()
    assert transport.served == [0]


def test_drain_serves_what_came_and_leaves_nothing_for_the_loop(host, transport, kicks):
    fd = host.write(0xFEB0_0050, 1)
    kicks.drain()
    host.watched[fd]()
    assert transport.served == [1]


def test_every_queue_in_use_is_looked_at_again(transport, kicks):
    transport.queues[0].state.ready = False
    kicks.look_again()
    assert transport.served == [1]


def test_kick_of_a_queue_that_is_not_in_use_is_forgotten(host, transport, kicks):
    transport.queues[1].state.ready = False
    host.watched[host.write(0xFEB0_0050, 1)]()
    assert transport.served == []


def test_host_that_refuses_is_told_and_nothing_is_watched(host):
    def refuse(gpa: int, size: int, value: int, fd: int) -> None:
        os.close(fd)
        raise HostError("refused")

    made = Kicks(refuse, host, host.lock, host.bugs.append)
    with pytest.raises(HostError, match="refused"):
        made.add([(0xFEB0_0000, Transport())])
    assert host.watched == {}


def test_fault_of_ours_ends_neither_the_loop_nor_a_stop(host, transport, kicks):
    def bad(index: int) -> None:
        raise KeyError(index)

    transport.notify = bad
    fd = host.write(0xFEB0_0050, 1)
    host.watched[fd]()
    host.write(0xFEB0_0050, 0)
    kicks.drain()
    assert [error.args for error in host.bugs] == [(1,), (0,)]
