"""Migration status changes along its table only, and the report keeps what it knows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.errors import InternalBugError
from instar.migration.report import Report
from instar.migration.status import TRANSITIONS, StatusMachine


@pytest.mark.parametrize(("before", "after"), [(a, b) for a in TRANSITIONS for b in TRANSITIONS])
def test_set_follows_the_table(before, after) -> None:
    machine = StatusMachine()
    machine.current = before
    try:
        machine.set(after)
    except InternalBugError:
        assert after not in TRANSITIONS[before]
    assert (machine.current == after) == (after in TRANSITIONS[before] or before == after)


def test_every_way_ends() -> None:
    assert {after for row in TRANSITIONS.values() for after in row} | {"none"} == set(TRANSITIONS)


def test_report_crosses_an_update() -> None:
    report = Report("cpr-exec", "0.1.0")
    report.began_ns, report.stopped_ns, report.resumed_ns, report.ended_ns = (
        1_000_000,
        2_000_000,
        9_000_000,
        10_000_000,
    )
    report.phases = [("stop", 1, 2), ("exec", 3, 4)]
    report.new_version = "0.1.1"
    again = Report.from_record(report.to_record())
    assert again.info() == report.info()
    assert again.info()["x-update"] == {
        "status": "running",
        "check": False,
        "owner": "old",
        "old-pid": 0,
        "new-pid": 0,
        "mode": "cpr-exec",
        "old-version": "0.1.0",
        "new-version": "0.1.1",
        "pause-us": 7000,
        "phases": [{"name": "stop", "us": 0}, {"name": "exec", "us": 0}],
    }
    assert again.info()["downtime"] == 7


VALUES = (
    st.none()
    | st.integers()
    | st.text()
    | st.booleans()
    | st.lists(st.text() | st.integers() | st.lists(st.text()))
)


@given(st.dictionaries(st.sampled_from([*Report.__slots__, "other"]), VALUES))
def test_report_of_any_record_is_a_report(record) -> None:
    assert isinstance(Report.from_record(record).info(), dict)
