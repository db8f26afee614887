"""The time between adoption and ready(): whoever ends it otherwise gives the work back, once, and nobody else does."""

import atexit
import signal
import sys

import pytest

from instar.cpr import trial as trial_module
from instar.cpr.errors import StateError
from instar.cpr.trial import Trial, hold_signals, let_in


class FakeAdopted:
    def __init__(self, failed="", **info):
        self.failed = failed
        self.info = info
        self.reasons = []

    def go_back(self, reason):
        self.reasons.append(reason)


@pytest.fixture(autouse=True)
def process(monkeypatch):
    """What a trial changes in a process; it must be as before at the end of each test."""
    monkeypatch.setattr(sys, "excepthook", lambda *_: None)
    before = (sys.excepthook, signal.getsignal(signal.SIGALRM))
    exits = []
    monkeypatch.setattr(atexit, "register", exits.append)
    monkeypatch.setattr(atexit, "unregister", exits.remove)
    yield exits
    assert (sys.excepthook, signal.getsignal(signal.SIGALRM), exits) == (*before, [])
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_exception_that_nobody_caught_gives_the_work_back_once(process):
    adopted = FakeAdopted()
    trial = Trial(adopted, "2", rehearsing=False)
    sys.excepthook(ValueError, ValueError("boom"), None)
    process[0]()
    trial.end()
    assert adopted.reasons == ["version 2: ValueError: boom"]


def test_end_of_the_program_tells_what_was_refused_before(process):
    adopted = FakeAdopted()
    trial = Trial(adopted, "2", rehearsing=False)
    trial.note(StateError("thing: is too new"))
    process[0]()
    trial.end()
    assert adopted.reasons == ["version 2: thing: is too new"]


def test_program_that_is_ready_gives_nothing_back():
    adopted = FakeAdopted(**{"limit-ms": 60_000})
    trial = Trial(adopted, "2", rehearsing=False)
    hook = sys.excepthook
    trial.end()
    hook(ValueError, ValueError("boom"), None)
    assert adopted.reasons == []


def test_time_that_is_over_gives_the_work_back():
    adopted = FakeAdopted(**{"limit-ms": 60_000})
    trial = Trial(adopted, "2", rehearsing=False)
    signal.raise_signal(signal.SIGALRM)
    trial.end()
    assert adopted.reasons == ["version 2: it was not ready within 60000 ms"]


@pytest.mark.parametrize("limit", [None, "9", 0, -1])
def test_limit_that_makes_no_sense_is_none(limit):
    before = signal.getsignal(signal.SIGALRM)
    trial = Trial(FakeAdopted(**{"limit-ms": limit}), "2", rehearsing=False)
    assert signal.getsignal(signal.SIGALRM) == before
    trial.end()


def test_old_program_that_goes_on_has_no_alarm():
    before = signal.getsignal(signal.SIGALRM)
    trial = Trial(FakeAdopted("boom", **{"limit-ms": 60_000}), "1", rehearsing=False)
    assert signal.getsignal(signal.SIGALRM) == before
    trial.end()


def test_child_that_inherits_the_trial_gives_nothing_back(monkeypatch, process):
    adopted = FakeAdopted()
    trial = Trial(adopted, "2", rehearsing=False)
    with monkeypatch.context() as child:
        child.setattr(trial_module.os, "getpid", lambda: 1)
        process[0]()
    trial.end()
    assert adopted.reasons == []


def test_signals_are_held_back_until_they_are_let_in():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    held = hold_signals()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    let_in(held)
    after = signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert held == [signal.SIGINT, signal.SIGTERM]
    assert mask == {*before, signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
    assert after == {*before, signal.SIGHUP}


@pytest.mark.parametrize("numbers", [None, "2", [None, "15", 9, 1 << 70]])
def test_signals_that_make_no_sense_are_not_let_in(numbers):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    let_in(numbers)
    assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_SETMASK, before)
