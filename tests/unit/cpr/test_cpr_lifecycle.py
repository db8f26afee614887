"""The executor of lifecycle tables, and the failure of every row of a table."""

import pytest

from instar.cpr.errors import (
    StateInvalidError,
    UpdateAbortedError,
    UpdateCancelledError,
    UpdateRefusedError,
)
from instar.cpr.lifecycle import AGAIN, WAIT, PhaseEvent, Row, Run, Table, phases_from

TABLE = Table(
    Row("prepare", "check", "check"),
    Row("prepare", "open", "open", "close"),
    Row("stop", "stop", "stop", "resume"),
    Row("save", "copy", "copy", "forget"),
    Row("exec", "exec", "execute"),
)
COMMITTED = Table(
    Row("prepare", "open", "open", "close"),
    Row("resume", "resume", "stop", "resume", commit=True),
    Row("settle", "settle", "copy", "forget"),
)


class Actor:
    """Notes its calls; ``script`` says what the calls of one action give, in turn."""

    def __init__(self, **script):
        self.calls = []
        self.script = script

    def __getattr__(self, name):
        if name.startswith("_") or name == "missing":
            raise AttributeError(name)
        return lambda: self.call(name)

    def call(self, name):
        self.calls.append(name)
        outcome = self.script.get(name, [None]).pop(0) if self.script.get(name) else None
        return self.outcome(outcome)

    def outcome(self, outcome):
        return outcome() if callable(outcome) else outcome


def failing(exc):
    def fail():
        raise exc

    return fail


def clock():
    ticks = iter(range(100, 10_000, 10))
    return lambda: next(ticks)


def names(events):
    return [event.phase for event in events]


def test_run_whole_table_calls_the_actions_in_order():
    actor, emitted = Actor(), []
    run = Run(TABLE, actor, emit=emitted.append)
    run.run()
    assert actor.calls == ["check", "open", "stop", "copy", "execute"]
    assert run.status == "done"
    assert names(emitted) == ["prepare", "stop", "save", "exec"]


def test_advance_does_one_action_a_call():
    actor = Actor()
    run = Run(TABLE, actor)
    assert run.advance() == "again"
    assert actor.calls == ["check"]
    assert (run.row.event, run.phase) == ("open", "prepare")


def test_phases_are_contiguous_and_in_the_snapshot():
    run = Run(TABLE, Actor(), clock=clock())
    for _ in range(3):
        run.advance()
    assert run.snapshot() == [
        {"phase": "prepare", "start-ns": 100, "took-ns": 10},
        {"phase": "save", "start-ns": 110, "took-ns": 10},
    ]
    run.run()
    starts = [event.start_ns for event in run.events]
    ends = [event.start_ns + event.took_ns for event in run.events]
    assert starts[1:] == ends[:-1]


def test_again_calls_the_same_action_until_it_is_finished():
    actor = Actor(copy=[AGAIN, AGAIN, None])
    run = Run(TABLE, actor)
    run.run()
    assert actor.calls == ["check", "open", "stop", "copy", "copy", "copy", "execute"]


def test_wait_stays_until_proceed():
    actor = Actor(copy=[WAIT])
    run = Run(TABLE, actor)
    assert [run.advance() for _ in range(6)] == ["again"] * 3 + ["waiting"] * 3
    assert actor.calls[-1] == "copy"
    run.proceed()
    assert run.advance() == "done"
    assert actor.calls[-1] == "execute"


def test_proceed_without_waiting_does_nothing():
    run = Run(TABLE, Actor())
    run.proceed()
    assert run.status == "ready"


def test_advance_after_the_end_says_done():
    run = Run(TABLE, Actor())
    run.run()
    assert run.advance() == "done"


UNDONE = {
    "check": [],
    "open": ["close"],
    "stop": ["resume", "close"],
    "copy": ["forget", "resume", "close"],
    "execute": ["forget", "resume", "close"],
}
ROWS = [(row.action, row.phase) for row in TABLE.rows]


@pytest.mark.parametrize(("action", "phase"), ROWS)
@pytest.mark.parametrize(
    "exc", [OSError(28, "No space left on device"), MemoryError(), ValueError("x")]
)
def test_failure_of_a_row_undoes_in_reverse_and_names_the_phase(action, phase, exc):
    actor = Actor(**{action: [failing(exc)]})
    run = Run(TABLE, actor)
    with pytest.raises((UpdateRefusedError, UpdateAbortedError)) as caught:
        run.run()
    assert caught.value.__cause__ is exc
    assert caught.value.phase == phase
    assert isinstance(caught.value, UpdateRefusedError) == (phase == "prepare")
    assert actor.calls[actor.calls.index(action) + 1 :] == UNDONE[action]
    assert run.status == "failed"
    assert run.events[-1].phase == phase


@pytest.mark.parametrize(("action", "phase"), ROWS)
def test_failure_with_an_error_of_the_engine_passes_it_on(action, phase):
    mine = StateInvalidError("plic.pending: 1 bit")
    run = Run(TABLE, Actor(**{action: [failing(mine)]}))
    with pytest.raises(StateInvalidError) as caught:
        run.run()
    assert caught.value is mine
    assert mine.phase == phase


def test_failure_text_says_what_failed_and_what_is_now():
    run = Run(TABLE, Actor(copy=[failing(OSError(28, "No space left on device"))]))
    with pytest.raises(UpdateAbortedError) as caught:
        run.run()
    assert str(caught.value) == (
        "update stopped in phase 'save': No space left on device; the old program goes on"
    )


@pytest.mark.parametrize("action", ["check", "open", "stop", "copy"])
def test_cancel_between_rows_undoes_in_reverse(action):
    actor = Actor()
    run = Run(TABLE, actor)
    while actor.calls[-1:] != [action]:
        run.advance()
    assert run.cancel()
    assert actor.calls[actor.calls.index(action) + 1 :] == UNDONE[action]
    assert (run.status, run.advance()) == ("cancelled", "done")


def test_cancel_before_the_first_row_undoes_nothing():
    actor = Actor()
    run = Run(TABLE, actor)
    assert run.cancel()
    assert (actor.calls, run.events, run.status) == ([], [], "cancelled")


def test_cancel_while_waiting_and_in_the_middle_of_a_row_undoes_it():
    for outcome in (WAIT, AGAIN):
        actor = Actor(copy=[outcome])
        run = Run(TABLE, actor)
        for _ in range(4):
            run.advance()
        assert run.cancel()
        assert actor.calls[4:] == ["forget", "resume", "close"]


def test_cancel_from_inside_an_action_takes_effect_when_it_returns():
    actor = Actor()
    run = Run(TABLE, actor)
    actor.script["stop"] = [lambda: run.cancel() and None]
    with pytest.raises(UpdateCancelledError) as caught:
        run.run()
    assert actor.calls == ["check", "open", "stop", "resume", "close"]
    assert (run.status, caught.value.phase) == ("cancelled", "stop")


def test_cancel_after_the_end_is_refused():
    run = Run(TABLE, Actor())
    run.run()
    assert not run.cancel()


def test_cancel_after_the_commit_is_refused():
    actor = Actor()
    run = Run(COMMITTED, actor)
    run.advance()
    run.advance()
    assert not run.cancel()
    run.run()
    assert actor.calls == ["open", "stop", "copy"]


def test_failure_after_the_commit_undoes_only_what_came_later():
    actor = Actor(copy=[failing(OSError(5, "Input/output error"))])
    with pytest.raises(UpdateAbortedError, match="Input/output error; reported"):
        Run(COMMITTED, actor).run()
    assert actor.calls == ["open", "stop", "copy", "forget"]


def test_undo_that_fails_does_not_stop_the_others_and_is_reported():
    actor = Actor(
        execute=[failing(OSError(8, "Exec format error"))], resume=[failing(KeyError("x"))]
    )
    with pytest.raises(ExceptionGroup) as caught:
        Run(TABLE, actor).run()
    assert actor.calls[-3:] == ["forget", "resume", "close"]
    first, second = caught.value.exceptions
    assert isinstance(first, UpdateAbortedError)
    assert second.__notes__ == ["while undoing stop/stop"]


def test_interrupt_of_the_terminal_undoes_and_passes_on():
    actor = Actor(copy=[failing(KeyboardInterrupt())])
    with pytest.raises(KeyboardInterrupt):
        Run(TABLE, actor).run()
    assert actor.calls[-3:] == ["forget", "resume", "close"]


def test_actor_without_a_method_is_a_type_error():
    with pytest.raises(TypeError, match="Actor has no method missing"):
        Run(Table(Row("stop", "stop", "missing")), Actor())


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [Row("nope", "a", "a")],
        [Row("save", "a", "a"), Row("stop", "b", "b")],
        [Row("stop", "a", "a"), Row("stop", "a", "b")],
    ],
)
def test_table_out_of_order_is_a_type_error(rows):
    with pytest.raises(TypeError):
        Table(*rows)


def test_mermaid_shows_rows_commit_and_undos():
    assert COMMITTED.mermaid() == (
        "stateDiagram-v2\n"
        "    [*] --> open\n"
        "    open : prepare / open\n"
        "    open --> resume\n"
        "    resume : resume / resume\n"
        "    resume --> settle : commit\n"
        "    settle : settle / settle\n"
        "    settle --> [*]\n"
        "    open --> undone : failure; close\n"
        "    resume --> undone : failure; resume, close\n"
        "    settle --> undone : failure; forget\n"
        "    undone --> [*]\n"
    )


def test_phases_from_a_snapshot_adds_exec():
    record = [PhaseEvent("stop", 100, 20).to_record(), PhaseEvent("save", 120, 5).to_record()]
    phases = [(e.phase, e.start_ns, e.took_ns) for e in phases_from(record, 200)]
    assert phases == [("stop", 100, 20), ("save", 120, 5), ("exec", 125, 75)]


@pytest.mark.parametrize(
    "record", [None, [], {}, [1], [{"phase": "stop", "start-ns": 1, "took-ns": "x"}]]
)
def test_phases_from_nonsense_are_none(record):
    assert phases_from(record, 5) == []
