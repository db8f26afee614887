"""Which versions a program can write for another one, and what it says when it cannot."""

import pytest

from instar.cpr.errors import StateTooNewError, StateTooOldError
from instar.cpr.losses import UNKNOWN, check_writable, differing, span
from instar.cpr.state import Record, State, state, step, sub, u


@state("test-loss-inner", version=1)
class Inner(State):
    """Inside."""

    at: int = u(8, "Where.")


@state("test-loss", version=3, oldest=2)
class Outer(State):
    """Two versions that are written, and one that was."""

    a: int = u(8, "A.")
    b: int = u(8, "B.", since=3)
    inside: Inner = sub(Inner, "Inside.")

    @step(2, 3)
    @staticmethod
    def _up(old: Record) -> Record:
        return {**old, "b": 0}

    @step(3, 2)
    @staticmethod
    def _down(new: Record) -> Record:
        return {key: value for key, value in new.items() if key != "b"}


@pytest.mark.parametrize(
    ("versions", "names"),
    [
        ({}, []),
        ({"test-loss": 3, "test-loss-inner": 1, "other": 7}, []),
        ({"test-loss": 2}, ["test-loss"]),
        ({"test-loss-inner": 2}, ["test-loss-inner"]),
        ({"test-loss-inner": 2, "test-loss": 1}, ["test-loss", "test-loss-inner"]),
    ],
)
def test_differing_are_the_state_and_those_inside_it_that_are_wanted_otherwise(versions, names):
    assert [cls.state_name for cls in differing(Outer, versions)] == names


@pytest.mark.parametrize("versions", [{}, {"test-loss": 3}, {"test-loss": 2}])
def test_versions_with_all_steps_down_are_written(versions):
    check_writable("thing0", Outer, versions, "1.5", "nothing changed")


@pytest.mark.parametrize(
    ("versions", "error", "text", "hint"),
    [
        (
            {"test-loss": 1},
            StateTooOldError,
            "thing0: the reader wants state test-loss as v1, this program (1.5) writes v2 to v3; nothing changed",
            "hint: go by a version that reads test-loss as v1 and as v2 to v3",
        ),
        (
            {"test-loss": 4},
            StateTooNewError,
            "thing0: the reader wants state test-loss as v4, this program (1.5) writes v2 to v3; nothing changed",
            "hint: go by a version that reads test-loss as v4 and as v2 to v3",
        ),
        (
            {"test-loss": UNKNOWN},
            StateTooNewError,
            "thing0: the reader does not know state test-loss, this program (1.5) writes v2 to v3; nothing changed",
            None,
        ),
        (
            {"test-loss-inner": 2},
            StateTooNewError,
            "thing0: the reader wants state test-loss-inner as v2, this program (1.5) writes v1; nothing changed",
            "hint: go by a version that reads test-loss-inner as v2 and as v1",
        ),
    ],
)
def test_version_without_a_step_is_refused_by_name_with_both_versions(versions, error, text, hint):
    with pytest.raises(error) as caught:
        check_writable("thing0", Outer, versions, "1.5", "nothing changed")
    assert str(caught.value) == text
    assert getattr(caught.value, "__notes__", [None]) == [hint]


def test_span_of_one_version_and_of_many():
    assert (span(Inner), span(Outer)) == ("v1", "v2 to v3")
