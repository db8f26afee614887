"""The table of the new program's half names what there is, in the order of the phases."""

from __future__ import annotations

import importlib

import pytest

from instar.cpr.lifecycle import PHASES
from instar.migration.tables import CHECK, EXEC
from instar.migration.takeover import IF_LOST, TAKEOVER

ORDER = ["exec", "build", *(name for name, *_ in PHASES if name in ("load", "resume", "settle"))]


def found(dotted: str) -> object:
    """What the dotted name of a function or method means."""
    module, _, name = dotted.rpartition(".")
    owner: object
    try:
        owner = importlib.import_module(module)
    except ModuleNotFoundError:
        parent, _, cls = module.rpartition(".")
        owner = getattr(importlib.import_module(parent), cls)
    return getattr(owner, name)


@pytest.mark.parametrize("step", [*TAKEOVER, *IF_LOST], ids=lambda step: step.event)
def test_step_names_what_does_it(step) -> None:
    assert callable(found(step.done_by))


def test_steps_are_in_the_order_of_the_phases() -> None:
    phases = [ORDER.index(step.phase) for step in TAKEOVER]
    assert phases == sorted(phases)
    assert len({step.event for step in TAKEOVER}) == len(TAKEOVER)


def test_until_the_commit_somebody_goes_on_with_the_guest() -> None:
    events = [step.event for step in TAKEOVER]
    before = TAKEOVER[: events.index("commit")]
    assert [step.event for step in before if "old program" not in step.failure] == []


def test_check_walks_the_very_rows_of_an_update_as_far_as_the_guest_runs() -> None:
    running = [row for row in EXEC.rows if row.phase in ("prepare", "rehearse")]
    assert [row for row in CHECK.rows[:-1] if row not in running] == []
    assert [row.event for row in running if row not in CHECK.rows] == ["setup", "keeper"]
