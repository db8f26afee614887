"""What the benchmark of updates makes of moments."""

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
from update_stats import (
    Case,
    Gap,
    Summary,
    at_ends,
    counted,
    longest_between,
    pause,
    ratio,
    stall,
    summary,
)


def test_summary_of_twenty_values_has_their_largest_as_p99():
    assert summary([float(n) for n in range(20)]) == Summary(9.5, 19.0, 20)


def test_summary_of_hundred_values_leaves_the_largest_out():
    assert summary([float(n) for n in range(100)]) == Summary(49.5, 98.0, 100)


def test_summary_of_nothing_is_none():
    assert summary([]) is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
@settings(max_examples=50)
def test_summary_of_any_values_lies_among_them(values):
    found = summary(values)
    assert min(values) <= found.median <= max(values)
    assert found.p99 in values
    assert found.p99 >= found.median or len(values) == 1 or found.p99 == max(values)


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [(4.0, 8.0, 0.5), (4.0, 0.01, None), (0.0, 8.0, 0.0)],
)
def test_ratio_is_of_the_medians_and_none_to_next_to_nothing(own, other, expected):
    assert ratio(Summary(own, 9.0, 1), Summary(other, 9.0, 1)) == expected


def test_ratio_without_the_other_side_is_none():
    assert ratio(Summary(4.0, 9.0, 1), None) is None


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [
        (25, 26, 30),  # within one gap
        (15, 55, 30),  # over several
        (20, 21, 30),  # a moment that is the begin counts as before
        (5, 8, None),  # nothing before
        (55, 99, None),  # nothing after
        (52, 60, 10),  # the last moment is the end
    ],
)
def test_longest_gap_is_the_one_that_touches_the_time(begin, end, expected):
    assert longest_between([10, 20, 50, 60], begin, end) == expected


def test_pause_is_the_longest_gap_that_touches_the_update():
    gaps = [Gap(0, 90, 80), Gap(100, 110, 10), Gap(120, 150, 20), Gap(300, 400, 90)]
    assert pause(gaps, 105, 200) == Gap(120, 150, 20)
    assert pause(gaps, 105, 200).length == 30


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [(105, 350, 110), (115, 350, 130), (135, 140, 30), (200, 250, 0), (96, 200, 10)],
)
def test_pauses_of_a_bridge_are_those_at_its_ends(begin, end, expected):
    gaps = [Gap(0, 90, 80), Gap(100, 110, 10), Gap(120, 150, 20), Gap(300, 400, 90)]
    assert at_ends(gaps, begin, end, 5) == expected


def test_pause_where_nothing_stood_still_is_none():
    assert pause([Gap(0, 90, 80)], 100, 200) is None


def test_stall_counts_what_is_sure_and_lies_within():
    gaps = [Gap(0, 90, 80), Gap(100, 150, 7), Gap(160, 170, 9), Gap(190, 300, 100)]
    assert stall(gaps, 95, 200) == 9
    assert stall([], 0, 100) == 0


def test_counted_is_the_way_between_the_reports_inside():
    assert counted([(0, 5), (10, 20), (20, 50), (30, 90)], 5, 25) == 30
    assert counted([(0, 5), (10, 20)], 5, 25) is None


@pytest.mark.parametrize(
    ("memory", "expected"), [(256, "256 MiB"), (1024, "1 GiB"), (1536, "1536 MiB")]
)
def test_case_is_named_in_gibibytes_where_they_are_whole(memory, expected):
    assert Case(memory, "touched", "cpr-exec").name == f"cpr-exec, {expected} touched"
