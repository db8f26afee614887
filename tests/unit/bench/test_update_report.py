"""The table, the goals, the file and the picture of a run that was made up."""

import io
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
from update_chart import chart, decades, place
from update_report import (
    MARKS,
    Series,
    between_marks,
    document,
    goals,
    markdown,
    notes,
    of_figure,
    phases,
    rows,
    save,
    table,
)
from update_stats import BRIDGE, Case

SMALL, LARGE = Case(256, "touched", "cpr-exec"), Case(8192, "touched", "cpr-exec")
TRANSFER = Case(1024, "untouched", "cpr-transfer")


@pytest.fixture
def series():
    made = Series({"instar": "Instar 1", "qemu": "QEMU <2>"})
    made.load = [1.0, 2.5]
    made.floor = {0: [0.5], 256: [20.0]}
    for number in range(3):
        made.add("instar", SMALL, {"pause": 10.0 + number, "downtime": 10.0})
        made.add("instar", LARGE, {"pause": 15.0, "peak": 20.0})
        made.add("qemu", LARGE, {"pause": 150.0, "peak": 0.0})
        made.add("instar", TRANSFER, {"pause": 2.0, "events": 3.0})
        made.add("qemu", TRANSFER, {"pause": 3.0, "events": 2.0})
    return made


def test_rows_have_medians_and_their_ratio(series):
    (row,) = [row for row in rows(series) if row.case == LARGE and row.figure == "pause"]
    assert (row.instar.median, row.qemu.median, row.ratio) == (15.0, 150.0, 0.1)


def test_rows_without_the_other_side_have_no_ratio(series):
    (row,) = [row for row in rows(series) if row.case == SMALL and row.figure == "pause"]
    assert (row.instar.median, row.qemu, row.ratio) == (11.0, None, None)


def test_goals_are_judged_for_what_was_measured(series):
    assert set(goals(series)) == {
        "goal, cpr-exec, 8 GiB touched, pause: counter in guest memory: 0.10, at most 0.15 of QEMU's: yes",
        "goal, cpr-exec touched, 8192 MiB against 256 MiB: 1.36, at most 1.2 times: no",
        "goal, cpr-transfer, 1 GiB untouched, STOP to RESUME: 1.50, at most 1.0 of QEMU's: no",
    }


def test_goals_of_a_bridge_are_in_milliseconds_too(series):
    series.add("instar", Case(1024, "untouched", BRIDGE), {"pause": 6.0})
    name = "goal, cpr-exec+bridge, 1 GiB untouched"
    assert f"{name}, median: 6.00, at most 5.0 ms: no" in goals(series)
    assert f"{name}, p99: 6.00, at most 15.0 ms: yes" in goals(series)


def test_notes_say_load_floor_and_how_well_the_two_views_agree(series):
    said = notes(series)
    assert any(line.endswith("load of the machine: 1.0 to 2.5") for line in said)
    assert "a bare C program, fork and exec: 0.50 ms, p99 0.50" in said
    assert "a bare C program, exec with 256 MiB mapped and touched: 20.00 ms, p99 20.00" in said
    differ = "the outside view and query-migrate differ by 1.00 ms, p99 2.00"
    assert f"cpr-exec, 256 MiB touched, instar: {differ}" in said


def test_table_shows_each_case_once(series):
    out = io.StringIO()
    Console(width=110, file=out).print(table(series))
    text = out.getvalue()
    assert [text.count(case.name) for case in (SMALL, LARGE, TRANSFER)] == [1, 1, 1]
    assert "15.00" in text


def test_phases_say_where_the_time_went(series):
    series.add(
        "instar", SMALL, {"lead": 0.25, "phase_stop": 1.0, "phase_settle": 9.0, "trail": 3.0}
    )
    before, after = "before it is noted 0.2", "until the guest counts again 3.0"
    assert phases(series) == [
        f"cpr-exec, 256 MiB touched, instar, ms: {before}, stop 1.0, {after}"
    ]


def test_markdown_has_a_row_for_each_case(series):
    text = markdown(series)
    assert "| cpr-exec, 8 GiB touched | 15.0 / 15.0 ms | 150.0 / 150.0 ms | 0.10 |" in text
    assert "| cpr-exec, 256 MiB touched | 11.0 / 12.0 ms | - | - |" in text
    assert "load of the machine: 1.0 to 2.5" in text


def test_text_between_the_marks_is_replaced_and_the_rest_stays():
    text = f"a\n{MARKS[0]}\nold\n{MARKS[1]}\nb\n"
    assert between_marks(text, "new") == f"a\n{MARKS[0]}\nnew\n{MARKS[1]}\nb\n"


def test_document_has_every_value_and_can_be_written(series, tmp_path):
    path = tmp_path / "folder" / "out.json"
    save(str(path), document(series))
    found = json.loads(path.read_text())
    assert found["series"][0]["instar"]["pause"] == [10.0, 11.0, 12.0]
    assert found["summary"][0]["instar"] == {"median": 11.0, "p99": 12.0, "runs": 3}


def test_chart_is_xml_with_a_bar_for_each_side_that_was_measured(series):
    picture = ET.fromstring(chart(of_figure(rows(series), "pause"), "QEMU <2> & more"))
    space = "{http://www.w3.org/2000/svg}"
    texts = [element.text for element in picture.iter(f"{space}text")]
    assert "QEMU <2> & more" in texts
    assert [text for text in texts if text in ("11.0", "15.0", "150.0", "2.0", "3.0")] == [
        "11.0", "15.0", "150.0", "2.0", "3.0",
    ]  # fmt: skip
    bars = [element for element in picture.iter(f"{space}rect") if element.get("height") == "13"]
    assert len(bars) == 5


def test_scale_encloses_the_values_and_one_millisecond_to_a_second():
    assert decades([20.0, 30.0]) == (0, 3)
    assert decades([0.0, 3000.0]) == (-2, 4)
    assert decades([]) == (0, 3)
    assert place(0.0, (0, 3)) == place(1.0, (0, 3)) < place(10.0, (0, 3)) < place(1000.0, (0, 3))
