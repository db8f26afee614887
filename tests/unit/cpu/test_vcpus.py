"""The thread that runs the harts parks when told to, whatever happens in it."""

from __future__ import annotations

import _thread

import pytest

from instar.cpu.rv64 import EXIT_BREAK, EXIT_IDLE, EXIT_KICKED
from instar.cpu.rv64.state import ModelState
from instar.cpu.rv64.vcpus import Rv64Vcpus
from instar.machine.virtual_timers import VirtualTimers

FURTHEST = ((1 << 64) - 1) // 100 * 100  # ns; the last time at which a guest's timer can fire


class FakeCore:
    """A core that is idle, reached a break, or does what a test says."""

    def __init__(self, run=lambda: EXIT_IDLE, deadline: int = -1) -> None:
        self._run = run
        self._deadline = deadline
        self.runs = 0
        self.ran = _thread.allocate_lock()
        self.ran.acquire()

    def run(self, _limit: int) -> int:
        self.runs += 1
        if self.ran.locked():
            self.ran.release()
        return self._run()

    def kick(self) -> None:
        """Nothing runs for long here."""

    def deadline_ns(self) -> int:
        return self._deadline

    def now_ns(self) -> int:
        return 0

    def warp_to(self, ns: int) -> None:
        """There is no clock."""


def start(core: FakeCore, told: list[object], *, icount_shift: int = -1) -> Rv64Vcpus:
    vcpus = Rv64Vcpus(
        core,
        model=ModelState(icount_shift=icount_shift),
        icount_sleep=True,
        timers=VirtualTimers(core, _thread.RLock()),
        on_break=lambda: told.append("break"),
        on_bug=told.append,
    )
    vcpus.resume()
    assert core.ran.acquire(timeout=10)
    return vcpus


@pytest.mark.parametrize("shift", [-1, 3])
def test_pause_while_a_timer_is_further_away_than_the_host_can_wait_returns(shift) -> None:
    told: list[object] = []
    vcpus = start(FakeCore(deadline=FURTHEST), told, icount_shift=shift)
    vcpus.pause()
    assert told == []


def test_pause_after_our_code_failed_in_the_thread_returns_and_the_failure_is_told() -> None:
    error = ValueError("a bug")

    def fail() -> int:
        raise error

    told: list[object] = []
    vcpus = start(FakeCore(fail), told)
    vcpus.pause()
    assert told == [error]


def test_parked_while_idle_lets_the_harts_go_on() -> None:
    core = FakeCore()
    vcpus = start(core, [])
    core.ran.acquire(blocking=False)
    assert vcpus.parked(lambda: "seen") == "seen"
    assert core.ran.acquire(timeout=10)
    vcpus.pause()


def test_parked_at_a_break_leaves_the_harts_there_until_resume() -> None:
    core, told = FakeCore(lambda: EXIT_BREAK), []
    vcpus = start(core, told)
    vcpus.parked(lambda: None)
    vcpus.pause()
    assert (core.runs, told) == (1, ["break"])
    vcpus.resume()
    vcpus.pause()
    assert told == ["break"] * core.runs


def test_parked_after_a_guest_asked_for_a_reset_leaves_the_harts_parked() -> None:
    asking: list[Rv64Vcpus] = []

    def ask() -> int:
        for vcpus in asking:
            vcpus.hold()
        return EXIT_KICKED

    core = FakeCore(ask)
    vcpus = start(core, [])
    asking.append(vcpus)
    while not vcpus._held:
        pass
    runs = core.runs
    vcpus.parked(lambda: None)
    vcpus.pause()
    assert core.runs == runs
