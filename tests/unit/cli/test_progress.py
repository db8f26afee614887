"""Plain and JSON progress: a line when a phase begins and at every quarter."""

import io
import json

from instar.cli.progress import LineReporter


def lines(told, *, as_json=False):
    stream = io.StringIO()
    with LineReporter(stream, as_json=as_json) as report:
        for phase, percent in told:
            report(phase, percent)
    return stream.getvalue().splitlines()


def test_plain_progress_of_many_steps_is_few_lines():
    assert lines([("fetching", float(percent)) for percent in range(101)]) == [
        "fetching",
        "fetching: 25%",
        "fetching: 50%",
        "fetching: 75%",
        "fetching: 100%",
    ]


def test_plain_progress_of_a_new_phase_begins_again():
    assert lines([("fetching", 100.0), ("building", 0.0), ("building", 3.0)]) == [
        "fetching: 100%",
        "building",
    ]


def test_json_progress_is_one_object_a_line():
    assert [json.loads(line) for line in lines([("fetching", 12.34)], as_json=True)] == [
        {"event": "progress", "phase": "fetching", "percent": 12.3}
    ]
