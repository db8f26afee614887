"""What ``instar update`` prints and how it ends, from what query-migrate says."""

from __future__ import annotations

import json

import pytest

from instar.cli.update import FailedUpdateError, NotUpdatedError, _tell_end, _tell_phases

REPORT = {
    "status": "completed", "check": False, "owner": "new", "old-version": "0.1", "new-version": "0.2", "old-pid": 7,
    "new-pid": 7, "program": "/x", "digest": "sha256:ab", "pause-us": 41200, "predicted-pause-us": 50000,
    "rehearsal-pause-us": 1500,
    "phases": [{"name": "stop", "us": 100}, {"name": "exec", "us": 40000}], "notes": ["a note"],
}  # fmt: skip


def test_outcome_for_people_says_all_of_it(capsys) -> None:
    _tell_end(REPORT, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "0.1 -> 0.2: completed",
        "program /x sha256:ab",
        "the guest stood still for 41.2 ms",
        "predicted was a pause of 50.0 ms",
        "for the rehearsal it had stood still for 1.5 ms",
        "the new program has the guest, process 7",
        "note: a note",
    ]


def test_outcome_as_json_is_one_line_with_the_report(capsys) -> None:
    _tell_end(REPORT, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"event": "done", **REPORT}


@pytest.mark.parametrize(
    ("status", "error", "exit_status"),
    [
        ("refused", NotUpdatedError, 6),
        ("cancelled", NotUpdatedError, 6),
        ("failed", FailedUpdateError, 7),
    ],
)
def test_update_that_was_not_completed_has_its_exit_status(status, error, exit_status) -> None:
    with pytest.raises(error, match=f"{status}: boom") as e:
        _tell_end({**REPORT, "status": status, "reason": "boom"}, as_json=False)
    assert e.value.exit_status == exit_status


def test_phases_are_printed_once_each(capsys) -> None:
    assert _tell_phases(REPORT, 1, as_json=False) == 2
    assert capsys.readouterr().out.split() == ["exec", "40.0", "ms"]
    assert _tell_phases(REPORT, 2, as_json=True) == 2
    assert capsys.readouterr().out == ""
    assert _tell_phases({"phases": "?"}, 0, as_json=True) == 0
