"""The engine of plain programs, on the side that goes on because the update failed."""

import os
import sys

import pytest

from instar.cpr import engine as engine_module
from instar.cpr import update as update_module
from instar.cpr.engine import MODE, Engine, Report
from instar.cpr.errors import (
    BlockedError,
    CprError,
    ExecFailedError,
    PeerError,
    StateInvalidError,
    TargetError,
    UpdateAbortedError,
    UpdateRefusedError,
)
from instar.cpr.fds import Fds
from instar.cpr.lifecycle import PhaseEvent
from instar.cpr.rehearsal import Answer
from instar.cpr.state import State, fd, state, u
from instar.cpr.update import UPDATE

PROGRAM = os.path.realpath(sys.executable)
ALONE = {"rehearse": False, "guardian": False}  # no other process has a part in it


@state("test-engine", version=1)
class Service(State):
    """A count and a descriptor."""

    count: int = u(8, "Things counted.")
    listener: int = fd("Where clients connect.")


class FakeAdopted:
    """What a program before this one left, without its stream."""

    failed = ""

    def __init__(self):
        self.fds = Fds()
        self.info = {}


@pytest.fixture
def null():
    opened = os.open("/dev/null", os.O_RDONLY)
    yield opened
    os.close(opened)


@pytest.fixture
def no_exec(monkeypatch):
    def execve(*_):
        raise OSError(8, "Exec format error")

    monkeypatch.setattr(os, "execve", execve)


def world():
    """Everything that a failed update must leave as it was."""
    fds = {n: os.get_inheritable(int(n)) for n in os.listdir("/proc/self/fd") if is_open(int(n))}
    return fds, dict(os.environ)


def is_open(number):
    try:
        os.fstat(number)
    except OSError:  # the descriptor of the listing itself
        return False
    return True


def test_first_start_gives_fresh_states_and_no_report():
    engine = Engine("1", environ={})
    assert engine.state("service", Service) == Service()
    assert not engine.adopted
    assert engine.ready() is None


def test_state_id_twice_is_a_type_error():
    engine = Engine("1", environ={})
    engine.state("service", Service)
    with pytest.raises(TypeError, match="'service' is already kept"):
        engine.state("service", Service)


def test_start_with_message_but_without_state_is_refused(monkeypatch):
    monkeypatch.setattr(engine_module, "adopt", lambda _: FakeAdopted())
    monkeypatch.setattr(engine_module, "Trial", lambda *_, **__: None)
    with pytest.raises(PeerError, match="sent no state"):
        Engine("1")


@pytest.mark.usefixtures("no_exec")
def test_update_whose_exec_returns_changes_nothing(null):
    calls = []
    engine = Engine(
        "1", environ={}, stop=lambda: calls.append("stop"), resume=lambda: calls.append("resume")
    )
    engine.notifiers.add(lambda event, mode: calls.append((event, mode)))
    engine.state("service", Service).listener = null
    before = world()
    for _ in range(2):
        with pytest.raises(
            ExecFailedError, match=r"execvp .* failed: Exec format error"
        ) as caught:
            engine.update([PROGRAM], **ALONE)
        assert caught.value.phase == "exec"
    assert world() == before
    assert list(engine.fds.walk()) == []
    assert calls == [("setup", MODE), "stop", ("done", MODE), "resume", ("failed", MODE)] * 2


@pytest.mark.parametrize(
    ("argv", "error"),
    [([], UpdateRefusedError), (["/nonexistent"], TargetError), (["/tmp"], TargetError)],
)
def test_update_to_nothing_is_refused_before_the_stop(argv, error):
    stopped = []
    engine = Engine("1", environ={}, stop=lambda: stopped.append(1))
    before = world()
    with pytest.raises(error):
        engine.update(argv)
    assert (world(), stopped) == (before, [])


@pytest.mark.parametrize("limit", [0, -1])
def test_update_without_time_is_refused(limit):
    engine = Engine("1", environ={})
    with pytest.raises(UpdateRefusedError, match=f"a limit of {limit} ms, at least 1"):
        engine.update([PROGRAM], limit_ms=limit)
    with pytest.raises(UpdateRefusedError, match=f"a limit of {limit} ms, at least 1"):
        engine.check([PROGRAM], limit_ms=limit)


def test_update_after_a_check_that_complained_is_refused():
    engine = Engine("1", environ={})
    told = Answer()
    told.complaints = ["it is no good"]
    before = world()
    with pytest.raises(UpdateRefusedError, match=r"it is no good; nothing changed$"):
        engine.update([PROGRAM], rehearse=told, guardian=False)
    assert world() == before


def test_update_that_is_blocked_is_refused():
    engine = Engine("1", environ={})
    engine.blockers.add("a transfer is under way", MODE)
    before = world()
    with pytest.raises(BlockedError, match="a transfer is under way"):
        engine.update([PROGRAM], **ALONE)
    assert world() == before


def test_update_with_a_veto_is_refused():
    engine = Engine("1", environ={})

    def veto(event, _mode):
        if event == "setup":
            raise ValueError("not now")

    engine.notifiers.add(veto)
    with pytest.raises(UpdateRefusedError, match="not now; refused, nothing changed"):
        engine.update([PROGRAM], **ALONE)


def test_update_with_state_that_no_loader_takes_is_aborted():
    engine = Engine("1", environ={})
    engine.state("service", Service).count = 256
    before = world()
    with pytest.raises(StateInvalidError, match=r"test-engine.count: 256 is not u8"):
        engine.update([PROGRAM], **ALONE)
    assert world() == before


def test_update_while_the_last_one_is_not_finished_is_refused(monkeypatch):
    engine = Engine("1", environ={})
    engine._adopted = FakeAdopted()
    with pytest.raises(UpdateRefusedError, match="is not finished"):
        engine.update([PROGRAM], **ALONE)


def failing(exc):
    def fail(*_):
        raise exc

    return fail


STEPS = [(row.action, row.phase) for row in UPDATE.rows]


@pytest.mark.usefixtures("no_exec")
@pytest.mark.parametrize(("action", "phase"), STEPS)
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("exc", [OSError(24, "Too many open files"), MemoryError("no memory")])
def test_update_with_a_failure_in_any_step_leaves_everything_as_it_was(
    monkeypatch, null, action, phase, late, exc
):
    calls = []
    engine = Engine("1", environ={}, stop=lambda: calls.append(1), resume=lambda: calls.append(-1))
    engine.state("service", Service).listener = null
    real = getattr(update_module._Update, action)
    monkeypatch.setattr(
        update_module._Update, action, lambda self: (late and real(self), failing(exc)())
    )
    before = world()
    with pytest.raises(CprError) as caught:
        engine.update([PROGRAM], **ALONE)
    assert caught.value.phase == phase
    assert isinstance(caught.value, UpdateRefusedError | UpdateAbortedError)
    assert world() == before
    assert list(engine.fds.walk()) == []
    monkeypatch.setattr(update_module._Update, action, real)
    with pytest.raises(ExecFailedError):
        engine.update([PROGRAM], **ALONE)
    assert world() == before


def test_report_says_versions_pause_and_phases():
    phases = [
        PhaseEvent("prepare", 0, 9_000_000),
        PhaseEvent("stop", 9_000_000, 200_000),
        PhaseEvent("load", 9_200_000, 1_300_000),
    ]
    report = Report("1", "2", phases, [])
    assert str(report) == "update 1 -> 2: pause 1.5 ms (stop 0.2, load 1.3)"


def test_report_of_a_failed_update_says_why_and_who_goes_on():
    report = Report("1", "1", [PhaseEvent("load", 0, 1_500_000)], [])
    report.failed, report.by = "boom", "way-back"
    assert str(report) == "update failed: boom; version 1 goes on: pause 1.5 ms (load 1.5)"
    report.by = "guardian"
    assert f"version 1 goes on as process {os.getpid()}: pause" in str(report)


def test_failing_listener_is_logged(caplog):
    engine = Engine("1", environ={})
    engine.notifiers.add(failing(ValueError("oops")))
    with pytest.raises(ValueError, match="oops"):
        engine.notifiers.setup(MODE)
    engine.notifiers.failed(MODE)
    assert caplog.messages == ["a listener failed on failed of cpr-exec: ValueError: oops"]
