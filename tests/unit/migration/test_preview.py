"""What goes over while the guest runs, and what is left to send when it stands still."""

from __future__ import annotations

import _thread
import os
from types import SimpleNamespace

import pytest

from instar.cpr.errors import StateInvalidError
from instar.cpr.fds import Fds
from instar.cpr.state import State, state, u
from instar.cpr.stream import Reader
from instar.cpr.writer import Writer
from instar.migration.preview import LENGTH, MARK, SAME, Preview, completed, take
from instar.migration.sections import Loaded, read_sections


@state("test-dial", version=1)
class Dial(State):
    """One number."""

    at: int = u(16, "Where it stands.")


class Thing:
    state_class = Dial

    def __init__(self, name: str, at: int = 0) -> None:
        self.state_id = name
        self.state = Dial(at=at)

    def save_state(self) -> Dial:
        return self.state

    def load_state(self, state: Dial) -> None:
        self.state = state


def machine(**things: int) -> SimpleNamespace:
    """A migration, as far as it is needed: its machine has these things."""
    made = [Thing(name, at) for name, at in things.items()]
    lock = _thread.RLock()
    vcpus = SimpleNamespace(states=[thing for thing in made if thing.state_id == "cpu"])
    board = SimpleNamespace(lock=lock, stateful=made[1:], vcpus=vcpus)
    return SimpleNamespace(ram_box=made[0], machine=board)


def all_of(migration: SimpleNamespace) -> list[Thing]:
    return [migration.ram_box, *migration.machine.stateful]


def memfd(data: bytes) -> int:
    fd = os.memfd_create("test")
    os.write(fd, data)
    return fd


def seen(migration: SimpleNamespace, preview: Preview) -> Loaded | None:
    """What the other program makes of it."""
    head = len(MARK) + LENGTH
    assert preview.message[:head] == MARK + (len(preview.message) - head).to_bytes(
        LENGTH, "little"
    )
    fd = memfd(preview.message[head:])
    try:
        return take(migration, fd, Fds())
    finally:
        os.close(fd)


def rest(preview: Preview, things: list[Thing]) -> Reader:
    """What is sent when the guest stands still."""
    fd = os.memfd_create("test")
    info: dict[str, object] = {"nonce": "0"}
    writer = Writer(fd, program="1", mode="cpr-transfer", info=info)
    preview.rest(writer, info, things)
    writer.finish()
    return Reader(fd)


def test_only_what_changed_since_is_sent_again_and_everything_arrives():
    ours, theirs = machine(ram=1, clock=2, card=3), machine(ram=0, clock=0, card=0)
    preview = Preview(ours, {})
    ahead = seen(theirs, preview)
    all_of(ours)[1].state.at = 7
    reader = rest(preview, all_of(ours))
    assert list(reader.manifest.objects) == ["clock"]
    assert reader.manifest.info[SAME] == ["ram", "card"]
    newer = read_sections(reader, all_of(theirs), Fds())
    loaded = completed(ahead, newer, reader.manifest.info[SAME], all_of(theirs))
    loaded.apply()
    assert [thing.state.at for thing in all_of(theirs)] == [1, 7, 3]
    assert [thing.state_id for thing, _ in loaded.pairs] == ["ram", "clock", "card"]


def test_what_came_later_than_the_preview_is_loaded_after_it():
    ours, theirs = machine(ram=1, card=3), machine(ram=0, card=0)
    preview = Preview(ours, {})
    late = Thing("late", 9)
    reader = rest(preview, [*all_of(ours), late])
    newer = read_sections(reader, [*all_of(theirs), Thing("late")], Fds())
    loaded = completed(seen(theirs, preview), newer, reader.manifest.info[SAME], all_of(theirs))
    assert [(thing.state_id, state.at) for thing, state in loaded.pairs] == [
        ("ram", 1),
        ("card", 3),
        ("late", 9),
    ]


def test_what_the_target_did_not_take_is_sent_again_as_a_whole():
    ours = machine(ram=1, card=3)
    preview = Preview(ours, {})
    assert seen(machine(ram=0), preview) is None
    preview.forget()
    reader = rest(preview, all_of(ours))
    assert list(reader.manifest.objects) == ["ram", "card"]
    assert reader.manifest.info[SAME] == []


@pytest.mark.parametrize("data", [b"", b"x" * 100, MARK])
def test_what_is_no_state_is_not_taken(data):
    fd = memfd(data)
    assert take(machine(ram=0), fd, Fds()) is None
    os.close(fd)


@pytest.mark.parametrize("same", [["card", "other"], ["other"], [7], [None], "card", 7, None])
def test_what_should_be_as_it_was_but_never_came_is_refused(same):
    theirs = machine(ram=0, card=0)
    ahead = Loaded([(theirs.ram_box, Dial(at=1))])
    with pytest.raises(StateInvalidError, match="did not come; nothing was loaded"):
        completed(ahead, Loaded([]), same, all_of(theirs))
    with pytest.raises(StateInvalidError, match="did not come; nothing was loaded"):
        completed(None, Loaded([]), same, all_of(theirs))


def test_what_is_neither_the_same_nor_sent_keeps_its_reset_state():
    theirs = machine(ram=0, card=5)
    ahead = Loaded([(thing, Dial(at=1)) for thing in all_of(theirs)])
    completed(ahead, Loaded([]), ["ram"], all_of(theirs)).apply()
    assert [thing.state.at for thing in all_of(theirs)] == [1, 5]
