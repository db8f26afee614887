"""Every version that a state ever had: recorded, unchanged, and still read by today's program."""

import copy
import importlib.util
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr.encoding import decode, encode
from instar.cpr.errors import StateInvalidError
from instar.cpr.state import (
    APART,
    Record,
    State,
    fd,
    flag,
    inner,
    layout,
    load,
    save,
    state,
    step,
    sub,
    subs,
    u,
    us,
)

HERE = Path(__file__).resolve().parent
SPEC = importlib.util.spec_from_file_location(
    "state_lock", HERE.parents[1] / "tools" / "state_lock.py"
)
state_lock = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(state_lock)

STATES = state_lock.declared_states()
BLOBS = sorted((HERE / "state").glob("*/v*.bin"))
VERSIONS = [
    pytest.param(cls, version, id=f"{name}-v{version}")
    for name, cls in sorted(STATES.items())
    for version in range(cls.state_oldest, cls.state_version + 1)
]


def test_declared_states_are_as_recorded():
    assert state_lock.problems(state_lock.read_lock(), STATES) == []


def test_every_recorded_version_has_its_blobs_unchanged_and_no_others():
    lock = state_lock.read_lock()
    assert state_lock.blob_problems(lock, HERE / "state") == []
    without = [
        (name, version)
        for name in lock
        for version, recorded in lock[name].items()
        if f"v{version}.bin" not in recorded["blobs"]
    ]
    assert without == []


def test_nothing_that_was_released_is_recorded_otherwise():
    assert state_lock.taken_back(state_lock.released_lock(), state_lock.read_lock()) == []


def read(path):
    blob = decode(path.read_bytes(), path.name)
    return STATES[blob["state"]], blob["version"], blob["fields"]


READ = [path for path in BLOBS if read(path)[1] >= read(path)[0].state_oldest]
# States with others inside are written with today's version of those.
EXACT = [
    path
    for path in READ
    if read(path)[1] == read(path)[0].state_version and "state:" not in str(layout(read(path)[0]))
]


def name_of(path):
    return f"{path.parent.name}-{path.stem}"


@pytest.mark.parametrize("path", READ, ids=name_of)
def test_blob_loads_and_saves_in_its_own_version_again(path):
    cls, version, fields = read(path)
    again = save(load(cls, version, fields), version)
    assert set(again) == set(fields)
    assert set(again.get(APART, {})) == set(fields.get(APART, {}))


@pytest.mark.parametrize("path", EXACT, ids=name_of)
def test_blob_of_the_current_version_is_what_is_written_today(path):
    cls, version, fields = read(path)
    assert save(load(cls, version, fields)) == fields
    assert state_lock.blob_of(cls, path.stem.partition("+")[2]) == path.read_bytes()


def numbers(wire, data):
    bits, low, high = re.fullmatch(r"u(\d+)\[(<=)?(\d+)\]", wire).groups()
    most = min(int(high), 400)
    least = 0 if low else int(high)
    return data.draw(
        st.lists(st.integers(0, (1 << int(bits)) - 1), min_size=least, max_size=max(most, least))
        if least < 9
        else st.just([data.draw(st.integers(0, (1 << int(bits)) - 1))] * least)
    )


def value(wire, usual, data):
    """Any value that a field of that kind can have; descriptors are none."""
    kind, _, limit = wire.partition("<=")
    match kind:
        case "fd":
            return -1
        case "flag":
            return data.draw(st.booleans())
        case "text":
            return data.draw(st.text(st.characters(codec="ascii"), max_size=min(int(limit), 20)))
        case "blob":
            return data.draw(st.binary(max_size=min(int(limit), 20)))
    if wire.startswith("state:"):
        name, many, _ = wire.removeprefix("state:").partition("[")
        inside = [drawn(STATES[name], data) for _ in range(data.draw(st.integers(0, 2)))]
        return inside[: len(usual) + 2] if many else drawn(STATES[name], data)
    if "[" in wire:
        return numbers(wire, data)
    bits = int(wire[1:])
    low, high = (0, 1 << bits) if wire[0] == "u" else (-1 << (bits - 1), 1 << (bits - 1))
    return data.draw(st.integers(low, high - 1))


def drawn(cls, data, version=None):
    """Any state for which its check() finds nothing wrong, and that a step down to ``version`` does not refuse."""
    made = state_lock.sample(cls)
    wanted = cls.state_version if version is None else version
    inside = {name: one.state_oldest for name, one in inner(cls, wanted).items()}
    for name, field in cls.state_fields.items():
        if field.since > wanted:  # what that version has not may be refused
            setattr(made, name, field.reset())
    for name, field in cls.state_fields.items():
        usual = getattr(made, name)
        try:
            setattr(made, name, value(field.wire, usual, data))
            save(made, wanted, versions=inside)
        except StateInvalidError:
            setattr(made, name, usual)
    return made


@pytest.mark.parametrize(("cls", "version"), VERSIONS)
@settings(max_examples=6, deadline=None, database=None)
@given(data=st.data())
def test_any_state_saved_in_any_version_comes_up_and_is_saved_the_same_again(cls, version, data):
    live = drawn(cls, data, version)
    inside = {name: one.state_oldest for name, one in inner(cls, version).items()}
    before = save(live)
    record = decode(encode(save(live, version, versions=inside)), "record")
    loaded = load(cls, version, record)
    assert save(loaded, version, versions=inside) == record
    assert save(live) == before


@pytest.mark.parametrize("cls", [pytest.param(STATES[name], id=name) for name in sorted(STATES)])
@settings(max_examples=6, deadline=None, database=None)
@given(data=st.data())
def test_any_state_saved_in_the_current_version_comes_up_equal(cls, data):
    live = drawn(cls, data)
    assert load(cls, cls.state_version, decode(encode(save(live)), "record")) == live


# ---------------------------------------------------------------- the mechanism itself


@state("test-lock-inner", version=1)
class Inner(State):
    """Something inside."""

    value: int = u(3, "A number.")


@state("test-lock", version=2)
class Locked(State):
    """Two versions."""

    value: int = u(8, "A number.")
    mode: int = u(1, "A bit.")
    on: bool = flag("A truth value.", since=2)
    some: list[int] = us(4, "Numbers.", max=8)
    inner: Inner = sub(Inner, "Something inside.")
    many: list[Inner] = subs(Inner, "More of it.", max=2)
    sock: int = fd("A descriptor.")

    @step(1, 2)
    @staticmethod
    def _up(old: Record) -> Record:
        return {**old, "on": False}

    @step(2, 1)
    @staticmethod
    def _down(new: Record) -> Record:
        return {key: value for key, value in new.items() if key != "on"}


@pytest.fixture
def lock(tmp_path):
    made = {"test-lock": {"1": {"fingerprint": "x", "fields": {}, "blobs": {}}}}
    state_lock.update(made, {"test-lock": Locked}, tmp_path)
    return made


def test_update_records_the_new_version_and_its_blob(lock, tmp_path):
    assert state_lock.problems(lock, {"test-lock": Locked}) == []
    blob = decode((tmp_path / "test-lock" / "v2.bin").read_bytes(), "blob")
    found = load(Locked, 2, blob["fields"])
    assert (found.on, found.mode, len(found.many), found.sock) == (True, 1, 1, -1)
    assert found.some
    assert found.value != 0


def test_update_again_adds_nothing(lock, tmp_path):
    assert state_lock.update(lock, {"test-lock": Locked}, tmp_path) == []


def test_update_refuses_to_overwrite_a_blob(lock, tmp_path):
    del lock["test-lock"]["2"]
    before = (tmp_path / "test-lock" / "v2.bin").read_bytes()
    with pytest.raises(FileExistsError):
        state_lock.update(lock, {"test-lock": Locked}, tmp_path)
    assert (tmp_path / "test-lock" / "v2.bin").read_bytes() == before


def test_changed_field_without_a_new_version_is_a_problem(lock):
    lock["test-lock"]["2"]["fields"]["value"] = "u16"
    assert state_lock.problems(lock, {"test-lock": Locked}) == [
        "test-lock v2: fields changed without a new version"
    ]


def test_unrecorded_and_vanished_states_are_problems(lock):
    assert state_lock.problems({}, {"test-lock": Locked}) == [
        "test-lock v2: is not recorded (tools/state_lock.py --update)",
        "test-lock v1: is read but not recorded",
    ]
    assert state_lock.problems(lock, {}) == ["test-lock: is recorded but not declared any more"]


def test_forget_drops_the_newest_version_alone(lock, tmp_path):
    assert state_lock.forget(lock, "test-lock", tmp_path, {}) == "test-lock v2"
    assert list(lock["test-lock"]) == ["1"]
    assert list((tmp_path / "test-lock").iterdir()) == []
    state_lock.forget(lock, "test-lock", tmp_path, {})
    assert lock == {}


def test_forget_refuses_what_was_released(lock, tmp_path):
    released = copy.deepcopy(lock)
    with pytest.raises(ValueError, match="test-lock v2 was released: it stays"):
        state_lock.forget(lock, "test-lock", tmp_path, released)
    assert lock == released


def test_changed_missing_and_strange_blobs_are_problems(lock, tmp_path):
    assert state_lock.blob_problems(lock, tmp_path) == []
    blob = tmp_path / "test-lock" / "v2.bin"
    content = blob.read_bytes()
    blob.write_bytes(content + b"x")
    assert state_lock.blob_problems(lock, tmp_path) == [
        "test-lock/v2.bin: was changed; blobs never change"
    ]
    blob.unlink()
    (tmp_path / "test-lock" / "v3.bin").write_bytes(b"")
    assert state_lock.blob_problems(lock, tmp_path) == [
        "test-lock/v2.bin: is recorded but not there",
        "test-lock/v3.bin: is not recorded",
    ]


def test_released_versions_that_changed_or_went_are_problems(lock):
    released = copy.deepcopy(lock)
    lock["test-lock"]["3"] = {"fields": {}, "blobs": {}}
    assert state_lock.taken_back(released, lock) == []
    lock["test-lock"]["2"]["blobs"]["v2.bin"] = "0"
    del lock["test-lock"]["1"]
    assert state_lock.taken_back(released, lock) == [
        "test-lock v1: was released and is not recorded any more",
        "test-lock v2: was released and is recorded otherwise now",
    ]


@state("test-lock-grown", version=1)
class Grown(State):
    """An optional field came later."""

    value: int = u(8, "A number.")
    extra: int = u(8, "Another.", optional=True)


def test_optional_field_is_added_to_a_recorded_version_with_a_blob_of_its_own(tmp_path):
    plain = {"value": "u8"}
    made = {"test-lock-grown": {"1": {**state_lock.entry(Grown), "blobs": {}}}}
    del made["test-lock-grown"]["1"]["optional"]
    assert made["test-lock-grown"]["1"]["fields"] == plain
    assert state_lock.problems(made, {"test-lock-grown": Grown}) == [
        "test-lock-grown v1: optional field extra is not recorded (tools/state_lock.py --update)"
    ]
    assert state_lock.update(made, {"test-lock-grown": Grown}, tmp_path) == [
        "test-lock-grown v1+extra"
    ]
    assert state_lock.problems(made, {"test-lock-grown": Grown}) == []
    assert state_lock.blob_problems(made, tmp_path) == []
    blob = decode((tmp_path / "test-lock-grown" / "v1+extra.bin").read_bytes(), "blob")
    assert list(blob["fields"][APART]) == ["extra"]


def test_optional_field_that_changed_or_went_is_a_problem(tmp_path):
    made = {}
    state_lock.update(made, {"test-lock-grown": Grown}, tmp_path)
    made["test-lock-grown"]["1"]["optional"] = {"extra": "u16", "gone": "u8"}
    assert state_lock.problems(made, {"test-lock-grown": Grown}) == [
        "test-lock-grown v1: optional field extra changed without a new version",
        "test-lock-grown v1: optional field gone changed without a new version",
    ]


def test_lock_file_is_sorted_json():
    text = (HERE / "state.lock").read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"
