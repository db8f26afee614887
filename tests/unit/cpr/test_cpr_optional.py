"""Optional fields: kept by who does not know them, refused where they are none; three releases of a state."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from instar.cpr.encoding import decode, encode
from instar.cpr.errors import StateInvalidError
from instar.cpr.state import (
    APART,
    MAX_KEPT,
    Record,
    State,
    flag,
    inner,
    kept,
    layout,
    load,
    optional_layout,
    save,
    state,
    step,
    sub,
    subs,
    text,
    u,
    us,
)

# One state as three releases declare it; the names differ only because this is one program.


@state("test-old-box", version=1)
class Old(State):
    """The first release."""

    size: int = u(8, "A size.")


@state("test-mid-box", version=1)
class Mid(State):
    """The second one: two optional fields, no new version."""

    size: int = u(8, "A size.")
    speed: int = u(8, "A speed.", optional=True, default=3)
    names: str = text("Names.", max=8, optional=True)
    marks: list[int] = us(4, "Marks.", max=3, optional=True)


@state("test-new-box", version=2)
class New(State):
    """The third one: the speed is no longer optional, the names still are."""

    size: int = u(8, "A size.")
    speed: int = u(8, "A speed.", since=2)
    loud: bool = flag("Loud.", since=2, optional=True)
    names: str = text("Names.", max=8, optional=True)

    @step(1, 2)
    @staticmethod
    def _up(old: Record) -> Record:
        return {"size": old["size"], "speed": 3}  # what its absence meant in the second release

    @step(2, 1)
    @staticmethod
    def _down(new: Record) -> Record:
        return {"size": new["size"], APART: {"speed": new["speed"]}}


@state("test-outer-box", version=1)
class Outer(State):
    """Others inside."""

    one: Old = sub(Old, "One.")
    many: list[Old] = subs(Old, "More.", max=3)


mids = st.builds(
    Mid,
    size=st.integers(0, 255),
    speed=st.integers(0, 255),
    names=st.text(st.characters(codec="ascii"), max_size=8),
    marks=st.lists(st.integers(0, 15), max_size=3),
)


def test_save_optional_field_with_its_reset_value_leaves_no_trace():
    assert save(Mid(size=1)) == {"size": 1}


def test_save_optional_field_with_another_value_stands_apart():
    assert save(Mid(size=1, speed=9)) == {"size": 1, APART: {"speed": 9}}


@settings(max_examples=50)
@given(mids)
def test_round_trip_through_a_reader_that_knows_none_of_them_keeps_all(live):
    through = load(Old, 1, save(live))
    again = decode(encode(save(through)), "record")
    assert load(Mid, 1, again) == live


@settings(max_examples=25)
@example(New(speed=3, names="ab"))  # the second release's reset value, which it leaves out
@given(st.builds(New, speed=st.integers(0, 255), loud=st.booleans(), names=st.just("ab")))
def test_round_trip_of_a_newer_version_through_two_older_releases_keeps_all(live):
    first = load(Old, 1, save(live, 1))
    second = load(Mid, 1, save(first))
    third = load(Old, 1, save(second))
    assert load(New, 1, save(third)) == live


def test_load_unknown_optional_field_says_that_it_is_kept():
    live = load(Old, 1, {"size": 1, APART: {"speed": 9}})
    assert live.state_kept == {"speed": 9}
    assert kept(live) == {"": {"speed": 9}}
    assert live != Old(size=1)


def test_load_optional_field_that_became_needed_wins_over_the_step():
    assert load(New, 1, {"size": 1, APART: {"speed": 9}}) == New(size=1, speed=9)
    assert load(New, 1, {"size": 1}) == New(size=1, speed=3)


def test_load_unknown_needed_field_is_refused():
    with pytest.raises(StateInvalidError, match="missing or unknown in v1: 'speed'"):
        load(Old, 1, {"size": 1, "speed": 9})


def test_load_optional_field_in_the_wrong_place_is_refused():
    with pytest.raises(StateInvalidError, match="missing or unknown in v1: 'speed'"):
        load(Mid, 1, {"size": 1, "speed": 9})


def test_load_needed_field_that_is_there_twice_is_refused():
    with pytest.raises(StateInvalidError, match=r"test-old-box\.size: is twice in the record"):
        load(Old, 1, {"size": 1, APART: {"size": 2}})


def test_load_optional_field_of_a_wrong_value_names_the_path():
    with pytest.raises(StateInvalidError, match=r"test-mid-box\.speed: 256 is not u8"):
        load(Mid, 1, {"size": 1, APART: {"speed": 256}})


@pytest.mark.parametrize(
    "apart",
    [
        7,
        [],
        {"a b": 1},
        {"x" * 65: 1},
        {"x": None},
        {"x": {}},
        {"x": [[]]},
        {"x": [True]},
        {f"x{n}": n for n in range(MAX_KEPT + 1)},
    ],
)
def test_load_optional_fields_that_nobody_writes_are_refused(apart):
    with pytest.raises(StateInvalidError, match=r"^test-old-box\.\+"):
        load(Old, 1, {"size": 1, APART: apart})


def test_load_does_not_change_the_record_it_was_given():
    record = {"size": 1, APART: {"speed": 9}}
    load(New, 1, record)
    load(Old, 1, record)
    assert record == {"size": 1, APART: {"speed": 9}}


def test_kept_fields_of_inner_states_have_their_paths():
    one = {"version": 1, "fields": {"size": 1, APART: {"x": 1}}}
    live = load(Outer, 1, {"one": one, "many": [{"version": 1, "fields": {"size": 2}}, one]})
    assert kept(live) == {"one": {"x": 1}, "many[1]": {"x": 1}}
    assert save(live) == {
        "one": one,
        "many": [{"version": 1, "fields": {"size": 2}}, one],
    }


def test_layout_has_the_optional_fields_apart():
    assert layout(Mid) == {"size": "u8"}
    assert optional_layout(Mid) == {"speed": "u8", "names": "text<=8", "marks": "u4[<=3]"}


def test_inner_states_are_found_at_any_depth():
    assert inner(Outer, 1) == {"test-old-box": Old}
    assert inner(Old, 1) == {}
