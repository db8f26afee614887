"""A VM keeps its identity, and takes no state of another."""

import uuid

import pytest

from instar.cpr.errors import StateCorruptError, StateInvalidError
from instar.migration.identity import NONE_GIVEN, Identity

ONE = "11111111-1111-1111-1111-111111111111"
TWO = "22222222-2222-2222-2222-222222222222"


def begun(given: str, name: str = "") -> Identity:
    made = Identity(given, name)
    made.begin()
    return made


def test_identity_without_a_uuid_is_a_random_one_and_stays() -> None:
    first, second = begun(NONE_GIVEN), begun(NONE_GIVEN)
    assert first.ident != second.ident
    assert uuid.UUID(first.ident).version == 4
    assert str(uuid.UUID(first.ident)) == first.ident
    before = first.ident
    first.begin()
    assert first.ident == before


def test_identity_with_a_uuid_is_that() -> None:
    assert begun(ONE).to_record() == {"id": ONE, "given": True, "name": ""}


def test_state_without_an_identity_is_taken_and_changes_none() -> None:
    mine = begun(ONE)
    owner = mine.check(None, None)
    mine.become(owner)
    assert (owner, mine.ident) == (None, ONE)


@pytest.mark.parametrize("given", [NONE_GIVEN, ONE])
def test_program_that_takes_a_state_becomes_whose_it_is(given: str) -> None:
    record = begun(given, "web").to_record()
    mine = begun(given, "renamed")
    mine.become(mine.check(record, record))
    assert mine.to_record() == {**record, "name": "renamed"}


@pytest.mark.parametrize(
    ("theirs", "mine", "text"),
    [
        (ONE, TWO, f"of VM a \\(-uuid {ONE}\\), this command line of VM b \\(-uuid {TWO}\\)"),
        (ONE, NONE_GIVEN, f"of VM a \\(-uuid {ONE}\\), this command line of VM b \\(no -uuid"),
        (NONE_GIVEN, TWO, f"of VM a \\(no -uuid.*this command line of VM b \\(-uuid {TWO}\\)"),
    ],
)
def test_state_of_another_vm_is_refused_by_name(theirs: str, mine: str, text: str) -> None:
    with pytest.raises(StateInvalidError, match=text):
        Identity(mine, "b").check(begun(theirs, "a").to_record(), None)


@pytest.mark.parametrize("state", [None, begun(NONE_GIVEN, "other").to_record()])
def test_state_that_is_not_of_whom_the_descriptors_are_is_refused(state: object) -> None:
    handed = begun(NONE_GIVEN, "web").to_record()
    with pytest.raises(StateInvalidError, match="the descriptors are of VM web"):
        Identity(NONE_GIVEN, "web").check(state, handed)


@pytest.mark.parametrize(
    "said",
    [
        7,
        {},
        {"id": ONE, "given": 1, "name": ""},
        {"id": "x", "given": True, "name": ""},
        {"id": ONE[:-1] + "\n", "given": True, "name": ""},
        {"id": ONE, "given": True, "name": "\x1b[2J"},
        {"id": ONE, "given": True, "name": "n" * 256},
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_hostile_identity_is_refused(said: object, place: int) -> None:
    pair: list[object] = [None, None]
    pair[place] = said
    with pytest.raises(StateCorruptError, match=r"manifest|the program before"):
        Identity(NONE_GIVEN, "").check(*pair)


def test_name_that_cannot_be_shown_is_told_so_that_it_can() -> None:
    record = begun(ONE, "\x1b[2J" + "n" * 300).to_record()
    assert Identity(ONE, "").check(record, record) is not None
