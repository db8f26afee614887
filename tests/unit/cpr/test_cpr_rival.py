"""Who owns the work when the program that it was offered to does not answer."""

import os
import socket

import pytest

from instar.cpr.lease import DECISION, WORK, Lease
from instar.cpr.rival import Rival, take_back


class Target:
    """The other program: what it does when it is stopped, and ended."""

    def __init__(
        self, theirs: Lease, *, can_be_stopped: bool = True, counts: bool = False
    ) -> None:
        self.pid = 1
        self.said: list[str] = []
        self._theirs = theirs
        self._can_be_stopped = can_be_stopped
        self._counts = counts

    def stop(self) -> bool:
        self.said.append("stop")
        if self._counts:  # it was faster
            os.pwrite(self._theirs.fd, (1).to_bytes(8, "little"), 8)
        return self._can_be_stopped

    def go_on(self) -> None:
        self.said.append("go-on")

    def kill(self) -> bool:
        self.said.append("kill")
        self._theirs.unlock(DECISION)
        self._theirs.unlock(WORK)
        return True


@pytest.fixture
def leases():
    mine = Lease.create()
    theirs = mine.reopen()
    yield mine, theirs
    os.close(mine.fd)
    os.close(theirs.fd)


def test_target_that_decided_nothing_is_ended_and_the_work_is_ours(leases) -> None:
    mine, theirs = leases
    target = Target(theirs)
    assert take_back(mine, 0, target) == "ours"
    assert target.said == ["kill"]
    assert mine.count == 1
    assert not theirs.lock(WORK)
    assert theirs.lock(DECISION)  # free for the next offer


def test_target_that_took_over_keeps_the_work_and_lives(leases) -> None:
    mine, theirs = leases
    theirs.commit(0)
    target = Target(theirs)
    assert take_back(mine, 0, target) == "theirs"
    assert target.said == ["go-on"]
    assert mine.count == 1


def test_target_that_took_over_and_let_the_decision_go_keeps_the_work(leases) -> None:
    mine, theirs = leases
    theirs.commit(0)
    theirs.unlock(DECISION)
    assert take_back(mine, 0, Target(theirs)) == "theirs"
    assert mine.count == 1


def test_target_that_stands_between_decision_and_count_is_ended(leases) -> None:
    mine, theirs = leases
    theirs.lock(DECISION)
    target = Target(theirs)
    assert take_back(mine, 0, target) == "ours"
    assert target.said == ["stop", "kill"]
    assert mine.count == 1


def test_target_that_counts_while_it_is_stopped_keeps_the_work(leases) -> None:
    mine, theirs = leases
    theirs.lock(DECISION)
    target = Target(theirs, counts=True)
    assert take_back(mine, 0, target) == "theirs"
    assert target.said == ["stop", "go-on"]


@pytest.mark.parametrize("known", [True, False])
def test_target_that_is_deciding_and_cannot_be_stopped_is_not_known(leases, known: bool) -> None:
    mine, theirs = leases
    theirs.lock(DECISION)
    targets = {True: Target(theirs, can_be_stopped=False), False: None}
    assert take_back(mine, 0, targets[known]) == "unknown"
    assert mine.count == 0
    theirs.unlock(DECISION)
    assert take_back(mine, 0, None) == "ours"


def test_process_at_the_other_end_is_found_and_seen_to_live() -> None:
    one, two = socket.socketpair()
    with one, two:
        rival = Rival(one)
        assert rival.pid == os.getpid()
        assert not rival.wait_end(0)
        assert not rival._stands()
        rival.close()
