"""Declared state: what is refused when a class is made, when it is saved and when it is loaded."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr.errors import StateInvalidError, StateTooNewError, StateTooOldError
from instar.cpr.fds import Fds
from instar.cpr.state import (
    Record,
    State,
    blob,
    fd,
    flag,
    i,
    layout,
    load,
    registry,
    save,
    state,
    step,
    sub,
    subs,
    text,
    u,
    us,
)

QUOTA = 100


@state("test-rng", version=3, oldest=2)
class RngState(State):
    """Three versions, the first no longer read."""

    served: int = u(64, "Bytes given.", unit="bytes")
    budget: int = u(32, "Bytes left.", unit="bytes", default=QUOTA, since=3)

    @step(2, 3)
    @staticmethod
    def _add_budget(old: Record) -> Record:
        return {"served": old["served"], "budget": 7}

    @step(3, 2)
    @staticmethod
    def _drop_budget(new: Record) -> Record:
        return {"served": new["served"], "legacy": 1}

    def check(self) -> None:
        if self.budget > QUOTA:
            raise StateInvalidError(f"test-rng.budget: {self.budget} bytes, limit {QUOTA}")


@state("test-all-kinds", version=1)
class AllKinds(State):
    """One field of each kind."""

    number: int = u(8, "A number.")
    signed: int = i(16, "A number with a sign.", default=-3)
    on: bool = flag("A truth value.", default=True)
    name: str = text("A text.", max=5)
    data: bytes = blob("Some bytes.", max=4)
    fixed: list[int] = us(4, "Three numbers.", length=3)
    some: list[int] = us(4, "Up to three numbers.", max=3)
    inner: RngState = sub(RngState, "Another state.")
    many: list[RngState] = subs(RngState, "Up to two others.", max=2)


@state("test-descriptor", version=1)
class Connection(State):
    """A descriptor as a field."""

    sock: int = fd("The connection.")


@state("test-connections", version=1)
class Connections(State):
    """Descriptors deeper down."""

    clients: list[Connection] = subs(Connection, "All of them.", max=4)


kinds = st.builds(
    AllKinds,
    number=st.integers(0, 255),
    signed=st.integers(-(1 << 15), (1 << 15) - 1),
    on=st.booleans(),
    name=st.text(st.characters(codec="ascii"), max_size=5),
    data=st.binary(max_size=4),
    fixed=st.lists(st.integers(0, 15), min_size=3, max_size=3),
    some=st.lists(st.integers(0, 15), max_size=3),
    inner=st.builds(RngState, served=st.integers(0, (1 << 64) - 1)),
    many=st.lists(st.builds(RngState, budget=st.integers(0, QUOTA)), max_size=2),
)


@settings(max_examples=50)
@given(kinds)
def test_save_then_load_any_values_gives_an_equal_state(live):
    assert load(AllKinds, 1, save(live)) == live


@settings(max_examples=25)
@given(kinds)
def test_save_leaves_the_source_as_it_was_and_shares_nothing(live):
    before = copy.deepcopy(save(live))
    record = save(live)
    record["fixed"].append(1)
    record["inner"]["fields"].clear()
    assert save(live) == before


def test_construct_without_arguments_gives_the_reset_state():
    assert save(AllKinds()) == {
        "number": 0,
        "signed": -3,
        "on": True,
        "name": "",
        "data": b"",
        "fixed": [0, 0, 0],
        "some": [],
        "inner": {"version": 3, "fields": {"served": 0, "budget": QUOTA}},
        "many": [],
    }


def test_construct_twice_shares_no_lists():
    AllKinds().fixed.append(1)
    assert AllKinds().fixed == [0, 0, 0]


def test_construct_with_unknown_field_is_a_type_error():
    with pytest.raises(TypeError, match="RngState has no field nope"):
        RngState(nope=1)  # type: ignore[call-arg]


def test_assign_unknown_attribute_is_refused_by_the_slots():
    with pytest.raises(AttributeError):
        RngState().cache = 1


def test_equal_states_of_other_classes_or_values_differ():
    assert RngState() != RngState(served=1)
    assert RngState() != Connection()


def test_repr_names_every_field():
    assert repr(RngState(served=5)) == "RngState(served=5, budget=100)"


# ---------------------------------------------------------------- what a record may not be


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"number": 256}, "test-all-kinds.number"),
        ({"number": -1}, "test-all-kinds.number"),
        ({"number": True}, "test-all-kinds.number"),
        ({"number": 1.0}, "test-all-kinds.number"),
        ({"signed": 1 << 15}, "test-all-kinds.signed"),
        ({"on": 1}, "test-all-kinds.on"),
        ({"name": "sechse"}, "test-all-kinds.name"),
        ({"name": "ééé"}, "test-all-kinds.name"),
        ({"name": "\ud800"}, "test-all-kinds.name"),
        ({"name": b"x"}, "test-all-kinds.name"),
        ({"data": b"12345"}, "test-all-kinds.data"),
        ({"data": "x"}, "test-all-kinds.data"),
        ({"fixed": [1, 2]}, "test-all-kinds.fixed"),
        ({"fixed": [1, 2, 16]}, "test-all-kinds.fixed[2]"),
        ({"fixed": [1, True, 2]}, "test-all-kinds.fixed[1]"),
        ({"some": [1, 2, 3, 4]}, "test-all-kinds.some"),
        ({"some": 7}, "test-all-kinds.some"),
        ({"inner": {}}, "test-all-kinds.inner"),
        ({"inner": {"version": True, "fields": {}}}, "test-rng"),
        ({"inner": {"version": 3, "fields": []}}, "test-all-kinds.inner"),
        (
            {"many": [{"version": 3, "fields": {"served": -1, "budget": 0}}]},
            "test-all-kinds.many[0].served",
        ),
        ({"many": [0]}, "test-all-kinds.many[0]"),
        ({"many": [0, 0, 0]}, "test-all-kinds.many"),
        ({"extra": 1}, "test-all-kinds"),
    ],
)
def test_load_wrong_value_names_the_path(change, path):
    with pytest.raises(StateInvalidError) as caught:
        load(AllKinds, 1, {**save(AllKinds()), **change})
    assert caught.value.path == path


def test_load_missing_field_is_refused():
    record = save(AllKinds())
    del record["on"]
    with pytest.raises(StateInvalidError, match=r"missing or unknown in v1: 'on'"):
        load(AllKinds, 1, record)


def test_load_contradicting_fields_is_refused_by_check():
    with pytest.raises(StateInvalidError) as caught:
        load(RngState, 3, {"served": 0, "budget": QUOTA + 1})
    assert caught.value.path == "test-rng.budget"


def test_load_hostile_value_keeps_the_message_short():
    with pytest.raises(StateInvalidError) as caught:
        load(AllKinds, 1, {**save(AllKinds()), "number": "x" * 100_000, "name": ""})
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("record", [None, [], "x", 7])
def test_load_something_that_is_no_record_is_refused(record):
    with pytest.raises(StateInvalidError, match="is not a record"):
        load(RngState, 3, record)


# ---------------------------------------------------------------- what the live state may not be


@pytest.mark.parametrize(
    ("name", "value"),
    [("number", 256), ("name", "too long"), ("fixed", [1]), ("inner", AllKinds()), ("many", [1])],
)
def test_save_live_value_that_no_loader_takes_is_refused_now(name, value):
    live = AllKinds()
    setattr(live, name, value)
    with pytest.raises(StateInvalidError, match=rf"^test-all-kinds\.{name}"):
        save(live)


def test_save_contradicting_fields_is_refused_now():
    with pytest.raises(StateInvalidError, match="limit 100"):
        save(RngState(budget=101))


# ---------------------------------------------------------------- versions


def test_load_older_record_goes_up_the_steps():
    assert load(RngState, 2, {"served": 4, "legacy": 1}) == RngState(served=4, budget=7)


def test_save_older_version_goes_down_the_steps():
    assert save(RngState(served=4), 2) == {"served": 4, "legacy": 1}


def test_save_nested_state_in_the_version_that_the_reader_knows():
    record = save(AllKinds(), versions={"test-rng": 2})
    assert record["inner"] == {"version": 2, "fields": {"served": 0, "legacy": 1}}


def test_load_record_from_the_future_says_both_versions():
    with pytest.raises(StateTooNewError) as caught:
        load(RngState, 4, {})
    assert str(caught.value) == "test-rng: record is v4, this program reads up to v3"


def test_load_record_from_before_the_oldest_is_refused():
    with pytest.raises(StateTooOldError, match="record is v1, this program reads from v2 on"):
        load(RngState, 1, {"served": 0})


def test_save_version_that_is_not_written_is_refused():
    with pytest.raises(StateTooOldError, match="this program writes from v2 on"):
        save(RngState(), 1)
    with pytest.raises(StateTooNewError, match="this program writes up to v3"):
        save(RngState(), 4)


@pytest.mark.parametrize("version", [0, -1, True, "3", None])
def test_load_version_that_is_no_version_is_refused(version):
    with pytest.raises(StateInvalidError, match="is not a version"):
        load(RngState, version, {})


def test_load_old_record_on_which_a_step_fails_is_refused():
    with pytest.raises(StateInvalidError, match=r"test-rng: missing or unknown in v2: 'served'"):
        load(RngState, 2, {"legacy": 1})


def test_load_old_record_with_a_later_field_is_refused():
    with pytest.raises(StateInvalidError, match="'budget'"):
        load(RngState, 2, {"served": 1, "budget": 2, "legacy": 1})


def test_load_record_whose_step_raises_names_the_step():
    @state("test-bad-step", version=2)
    class _Bad(State):
        value: int = u(8, "A number.")

        @step(1, 2)
        @staticmethod
        def _up(old: Record) -> Record:
            return {"value": old["value"], "other": old["gone"]}

        @step(2, 1)
        @staticmethod
        def _down(new: Record) -> Record:
            return new

    with pytest.raises(
        StateInvalidError, match=r"record of v1 cannot be brought to v2 \(KeyError\)"
    ):
        load(_Bad, 1, {"value": 1})


def test_load_does_not_change_the_record_it_was_given():
    record = {"served": 4, "legacy": 1}
    load(RngState, 2, record)
    assert record == {"served": 4, "legacy": 1}


# ---------------------------------------------------------------- descriptors


def test_save_descriptor_without_a_carrier_is_refused():
    with pytest.raises(StateInvalidError, match="cannot carry a descriptor"):
        save(Connection(sock=1))


def test_save_no_descriptor_needs_no_carrier():
    assert load(Connection, 1, save(Connection())).sock == -1


def test_save_descriptors_are_named_after_owner_and_path():
    fds = Fds()
    live = Connections(clients=[Connection(sock=0), Connection(), Connection(sock=1)])
    record = save(live, fds=fds, owner="service")
    assert [(e.name, e.fd, e.owner) for e in fds.walk()] == [
        ("service.clients[0].sock", 0, "service"),
        ("service.clients[2].sock", 1, "service"),
    ]
    assert load(Connections, 1, record, fds=fds) == live
    assert list(fds.walk()) == []


def test_load_descriptor_that_did_not_arrive_is_refused():
    with pytest.raises(StateInvalidError, match="descriptor 'x' did not arrive"):
        load(Connection, 1, {"sock": "x"}, fds=Fds())
    with pytest.raises(StateInvalidError, match="did not arrive"):
        load(Connection, 1, {"sock": "x"})


@pytest.mark.parametrize("value", [-2, True, "1", None])
def test_save_value_that_is_no_descriptor_is_refused(value):
    live = Connection()
    live.sock = value
    with pytest.raises(StateInvalidError, match="is not fd"):
        save(live)


def test_load_descriptor_whose_name_is_no_text_is_refused():
    with pytest.raises(StateInvalidError, match="7 is not fd"):
        load(Connection, 1, {"sock": 7})


# ---------------------------------------------------------------- declarations


def test_declare_version_without_its_steps_is_a_type_error():
    with pytest.raises(
        TypeError, match=r"test-steps v1..v2: has steps up from \[\], down from \[\]"
    ):

        @state("test-steps", version=2)
        class _Missing(State):
            value: int = u(8, "A number.")


def test_declare_two_steps_for_one_way_is_a_type_error():
    with pytest.raises(TypeError, match="two steps leave v1"):

        @state("test-double-step", version=2)
        class _Doubled(State):
            up = step(1, 2)(dict)
            up2 = step(1, 2)(lambda old: old)
            down = step(2, 1)(dict)


def test_declare_step_between_strangers_is_a_type_error():
    with pytest.raises(TypeError, match="steps join neighbours, not v1 and v3"):
        step(1, 3)


def test_declare_name_twice_is_a_type_error():
    with pytest.raises(TypeError, match="'test-rng' is taken by RngState"):

        @state("test-rng", version=1)
        class _Again(State):
            value: int = u(8, "A number.")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "x" * 65])
def test_declare_bad_name_is_a_type_error(name):
    with pytest.raises(TypeError, match="state name"):
        state(name, version=1)


@pytest.mark.parametrize(("version", "oldest"), [(0, 1), (1, 2), (1, 0)])
def test_declare_bad_version_range_is_a_type_error(version, oldest):
    with pytest.raises(TypeError, match="are not a range"):
        state("test-range", version=version, oldest=oldest)(type("Fresh", (State,), {}))


def test_declare_field_since_the_future_is_a_type_error():
    with pytest.raises(TypeError, match="since v2, state is v1"):

        @state("test-since", version=1)
        class _Since(State):
            value: int = u(8, "A number.", since=2)


def test_derive_from_a_declared_state_is_a_type_error():
    with pytest.raises(TypeError, match="derives from State alone"):
        type("Sub", (RngState,), {})


def test_use_undeclared_state_is_a_type_error():
    class _Undeclared(State):
        value: int = u(8, "A number.")

    with pytest.raises(TypeError, match="not declared with @state"):
        save(_Undeclared())


@pytest.mark.parametrize(
    "declare",
    [
        lambda: u(0, "x"),
        lambda: u(65, "x"),
        lambda: u(8, "x", default=256),
        lambda: u(8, ""),
        lambda: i(8, "x", default=128),
        lambda: us(8, "x"),
        lambda: us(8, "x", length=1, max=1),
        lambda: us(8, "x", length=0),
        lambda: us(8, "x", max=(1 << 20) + 1),
        lambda: text("x", max=0),
        lambda: blob("x", max=(1 << 24) + 1),
        lambda: subs(RngState, "x", max=0),
        lambda: sub(State, "x"),
    ],
)
def test_declare_bad_field_is_a_type_error(declare):
    with pytest.raises(TypeError):
        declare()


def test_registry_has_every_declared_state():
    assert registry()["test-rng"] is RngState


def test_layout_is_canonical():
    assert layout(AllKinds) == {
        "data": "blob<=4",
        "fixed": "u4[3]",
        "inner": "state:test-rng",
        "many": "state:test-rng[<=2]",
        "name": "text<=5",
        "number": "u8",
        "on": "flag",
        "signed": "i16",
        "some": "u4[<=3]",
    }
