"""What another program's news of its tasks is taken for."""

import pytest

from instar.cpr.keeper import MAX_KEEPERS, pids_of


def test_pids_of_a_list_are_its_processes():
    assert pids_of([7, 4194303]) == [7, 4194303]


@pytest.mark.parametrize(
    "news", [None, 7, "7", {"7": 7}, [1], [0], [-7], [True], ["7"], [1 << 31]]
)
def test_pids_of_what_names_no_process_are_none(news):
    assert pids_of(news) == []


def test_pids_of_a_list_without_an_end_are_limited():
    assert len(pids_of(list(range(2, 10_000)))) == MAX_KEEPERS
