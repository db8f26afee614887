"""Run states change along their table only."""

from __future__ import annotations

import pytest

from instar.errors import InternalBugError
from instar.machine.runstate import NEEDS_RESET, TRANSITIONS, RunStateMachine

PAIRS = [(a, b) for a in TRANSITIONS for b in TRANSITIONS]


@pytest.mark.parametrize(("before", "after"), [p for p in PAIRS if p[1] in TRANSITIONS[p[0]]])
def test_set_along_the_table_changes(before, after) -> None:
    states = RunStateMachine(before)
    states.set(after)
    assert states.current == after


@pytest.mark.parametrize(
    ("before", "after"), [p for p in PAIRS if p[0] != p[1] and p[1] not in TRANSITIONS[p[0]]]
)
def test_set_off_the_table_is_our_bug_and_changes_nothing(before, after) -> None:
    states = RunStateMachine(before)
    with pytest.raises(InternalBugError, match=f"{before} cannot become {after}"):
        states.set(after)
    assert states.current == before


def test_table_names_only_known_states() -> None:
    assert {after for row in TRANSITIONS.values() for after in row} <= set(TRANSITIONS)


def test_state_that_needs_reset_cannot_run_at_once() -> None:
    assert all("running" not in TRANSITIONS[name] for name in NEEDS_RESET)
