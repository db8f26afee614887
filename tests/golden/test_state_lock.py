"""Every version that a state ever had: recorded, unchanged, and still read by today's program."""

import importlib.util
import json
from pathlib import Path

import pytest

from instar.cpr.encoding import decode
from instar.cpr.state import (
    Record,
    State,
    fd,
    flag,
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


def test_declared_states_are_as_recorded():
    assert state_lock.problems(state_lock.read_lock(), STATES) == []


def test_every_recorded_version_has_its_blob_and_no_other():
    lock = state_lock.read_lock()
    recorded = sorted(f"{name}/v{version}.bin" for name in lock for version in lock[name])
    assert recorded == sorted(str(path.relative_to(HERE / "state")) for path in BLOBS)


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


@pytest.mark.parametrize("path", EXACT, ids=name_of)
def test_blob_of_the_current_version_is_what_is_written_today(path):
    cls, version, fields = read(path)
    assert save(load(cls, version, fields)) == fields
    assert state_lock.blob_of(cls) == path.read_bytes()


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
    made = {"test-lock": {"1": {"fingerprint": "x", "fields": {}}}}
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
    assert state_lock.forget(lock, "test-lock", tmp_path) == "test-lock v2"
    assert list(lock["test-lock"]) == ["1"]
    assert list((tmp_path / "test-lock").iterdir()) == []
    state_lock.forget(lock, "test-lock", tmp_path)
    assert lock == {}


def test_lock_file_is_sorted_json():
    text = (HERE / "state.lock").read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"
