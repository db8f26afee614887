"""State of things to a stream and back, also for readers of other versions; two releases of one thing side by side."""

import os

import pytest

from instar import log
from instar.cpr.errors import (
    StateCorruptError,
    StateInvalidError,
    StateTooNewError,
    StateTooOldError,
)
from instar.cpr.fds import Fds
from instar.cpr.losses import losses
from instar.cpr.state import APART, Record, State, fd, load, save, state, step, sub, subs, text, u
from instar.cpr.stream import Reader
from instar.cpr.versions import readable_versions, versions_for
from instar.cpr.writer import Writer
from instar.migration import saving, sections
from instar.migration.saving import host_records, losses_of, write_sections
from instar.migration.sections import check_manifest, load_host, read_sections


@state("test-ring", version=2)
class Ring(State):
    """Something inside others."""

    at: int = u(16, "Where.")
    wrap: int = u(1, "A bit.", since=2)

    @step(1, 2)
    @staticmethod
    def _up(old: Record) -> Record:
        return {**old, "wrap": 0}

    @step(2, 1)
    @staticmethod
    def _down(new: Record) -> Record:
        return {"at": new["at"]}


@state("test-card", version=4, oldest=2)
class Card(State):
    """Four versions, the first forgotten; the last gained a list."""

    a: int = u(8, "A.")
    b: int = u(8, "B.", since=3)
    rings: list[Ring] = subs(Ring, "Rings.", max=4)
    spare: Ring = sub(Ring, "One more.", since=4)

    @step(2, 3)
    @staticmethod
    def _up3(old: Record) -> Record:
        return {**old, "b": 1}

    @step(3, 2)
    @staticmethod
    def _down2(new: Record) -> Record:
        return {key: value for key, value in new.items() if key != "b"}

    @step(3, 4)
    @staticmethod
    def _up4(old: Record) -> Record:
        return {**old, "spare": {"version": 2, "fields": {"at": 0, "wrap": 0}}}

    @step(4, 3)
    @staticmethod
    def _down3(new: Record) -> Record:
        return {key: value for key, value in new.items() if key != "spare"}


@state("test-wire", version=2)
class Wire(State):
    """Has a descriptor."""

    sock: int = fd("It.")
    name: str = text("Later.", max=4, since=2)

    @step(1, 2)
    @staticmethod
    def _up(old: Record) -> Record:
        return {**old, "name": "x"}

    @step(2, 1)
    @staticmethod
    def _down(new: Record) -> Record:
        return {"sock": new["sock"]}


class Thing:
    """Takes its fields out of a state one by one, as many do."""

    state_class = Card
    state_id = "card0"

    def __init__(self, a=0, b=0, rings=()):
        self.a, self.b, self.rings = a, b, list(rings)

    def save_state(self):
        return Card(a=self.a, b=self.b, rings=[Ring(at=r.at, wrap=r.wrap) for r in self.rings])

    def load_state(self, loaded):
        self.a, self.b, self.rings = loaded.a, loaded.b, loaded.rings


class Plain:
    """Another thing."""

    state_class = Ring
    state_id = "card0"

    def save_state(self):
        return Ring()

    def load_state(self, loaded):
        raise AssertionError(loaded)


@pytest.fixture
def file():
    fd = os.memfd_create("stream")
    yield fd
    os.close(fd)


@pytest.fixture
def kept(monkeypatch):
    table = {}
    monkeypatch.setattr(sections, "KEPT", table)
    monkeypatch.setattr(saving, "KEPT", table)
    return table


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(log, "warning", said.append)
    return said


def written(fd, things, versions=None, program="0.9"):
    os.ftruncate(fd, 0)
    writer = Writer(fd, program=program, mode="cpr-exec")
    write_sections(writer, things, Fds(), versions)
    writer.finish()
    return Reader(fd)


def raw(fd, version, record, inner=None, program="0.9"):
    """A stream as another release writes it."""
    os.ftruncate(fd, 0)
    writer = Writer(fd, program=program, mode="cpr-exec")
    writer.add("card0", "test-card", version, record, inner)
    writer.finish()
    return Reader(fd)


def test_write_without_wishes_takes_the_current_versions(file):
    (section,) = written(file, [Thing()]).manifest.objects.values()
    assert (section.state, section.version, section.inner) == ("test-card", 4, {"test-ring": 2})


@pytest.mark.parametrize("card", [2, 3, 4])
@pytest.mark.parametrize("ring", [1, 2])
def test_write_for_an_older_reader_takes_its_versions_and_comes_up_again(file, card, ring):
    old = Thing(a=5, b=1, rings=[Ring(at=7), Ring(at=8)])
    reader = written(file, [old], {"test-card": card, "test-ring": ring})
    (section,) = reader.manifest.objects.values()
    assert (section.version, section.inner) == (card, {"test-ring": ring})
    assert [r["version"] for r in reader.record("card0")["rings"]] == [ring, ring]
    new = Thing()
    read_sections(reader, [new], None).apply()
    assert (new.a, new.b, new.rings) == (5, 1, old.rings)


@pytest.mark.parametrize(
    ("versions", "error", "text"),
    [
        ({"test-card": 1}, StateTooOldError, "wants state test-card as v1, this program"),
        ({"test-card": 5}, StateTooNewError, "wants state test-card as v5, this program"),
        ({"test-ring": 3}, StateTooNewError, "wants state test-ring as v3, this program"),
    ],
)
def test_write_version_that_is_not_written_names_object_and_way(file, versions, error, text):
    with pytest.raises(error, match=f"^card0: the reader {text}.*; nothing was written") as caught:
        written(file, [Thing()], versions)
    assert caught.value.__notes__[0].startswith("hint: go by a version that reads test-")


def test_announcement_has_the_range_of_every_state():
    assert readable_versions()["test-card"] == (2, 4)
    assert readable_versions()["ram"] == (1, 1)


@pytest.mark.parametrize(
    ("announced", "version"),
    [((1, 3), 3), ([2, 2], 2), ((3, 9), 4), ((6, 9), 6), ((1, 1), 1)],
)
def test_versions_for_a_reader_are_the_newest_that_both_know_or_what_it_wants(announced, version):
    assert versions_for({"test-card": announced})["test-card"] == version


def test_versions_for_a_reader_that_does_not_say_are_the_current_ones():
    assert versions_for({"other": 7})["test-card"] == 4


@pytest.mark.parametrize(
    "announced", [None, [], {"test-card": 3}, {"test-card": (0, 1)}, {"test-card": (3, 2)}]
)
def test_versions_of_a_hostile_announcement_are_refused(announced):
    with pytest.raises(StateInvalidError):
        versions_for(announced)


def test_write_for_an_older_reader_tells_what_it_loses(file, warnings):
    old = Thing(a=5, b=9, rings=[Ring(at=7), Ring(at=8, wrap=1)])
    assert losses_of([old], {"test-card": 2, "test-ring": 1}) == ["card0.b", "card0.rings[1].wrap"]
    assert losses_of([old], {"test-card": 3}) == losses_of([old], {}) == []
    written(file, [old], {"test-card": 2, "test-ring": 1})
    assert warnings == [
        "card0.b is not known to the reader and does not go on",
        "card0.rings[1].wrap is not known to the reader and does not go on",
    ]


def test_losses_for_a_reader_that_cannot_be_served_are_refused():
    with pytest.raises(StateTooOldError, match=r"^card0: the reader wants"):
        losses_of([Thing()], {"test-card": 1})


def test_losses_of_a_state_with_a_descriptor_need_no_carrier():
    live = Wire(sock=3)
    assert losses(live, 1, {}) == ["name"]


# ---------------------------------------------------------------- what the manifest tells


def test_read_state_of_a_later_version_says_who_can_before_reading_it(file):
    reader = raw(file, 7, {}, program="1.5")
    with pytest.raises(StateTooNewError) as caught:
        check_manifest(reader.manifest, [Thing()])
    assert str(caught.value).startswith("card0: state test-card is v7, this program (")
    assert str(caught.value).endswith(
        "reads v2 to v4; version 1.5, which wrote it, or a later one is needed; nothing was loaded"
    )


def test_read_later_version_is_refused_even_if_its_section_is_torn(file):
    raw(file, 7, {"a": 1})
    os.ftruncate(file, os.fstat(file).st_size - 21)
    with pytest.raises(StateTooNewError):
        read_sections(Reader(file), [Thing()], None)


def test_read_later_version_of_an_inner_state_is_refused_in_the_manifest(file):
    reader = raw(file, 4, {}, {"test-ring": 3, "unheard-of": 9})
    with pytest.raises(
        StateTooNewError, match=r"card0: state test-ring is v3, .* reads v1 to v2;"
    ):
        check_manifest(reader.manifest, [Thing()])


def test_read_forgotten_version_says_that_one_in_between_is_needed(file):
    with pytest.raises(StateTooOldError, match="a version that reads v1 is needed in between"):
        check_manifest(raw(file, 1, {}).manifest, [Thing()])


def test_read_object_that_is_not_here_or_another_thing_is_refused(file):
    manifest = raw(file, 4, {}).manifest
    with pytest.raises(StateInvalidError, match="Unknown section or instance 'card0' 0"):
        check_manifest(manifest, [])
    with pytest.raises(StateInvalidError, match="stream has test-card, this machine test-ring"):
        check_manifest(manifest, [Plain()])


def test_read_damaged_section_is_named(file):
    written(file, [Thing()])
    end = os.fstat(file).st_size - 20
    os.pwrite(file, b"\xff", end - 1)
    reader = Reader(file)
    with pytest.raises(StateCorruptError, match="section card0: checksum"):
        read_sections(reader, [Thing()], None)


# ---------------------------------------------------------------- optional fields of versions to come


def with_apart(apart):
    return {**save(Card(a=1), 4), APART: apart}


def test_unknown_optional_field_stays_with_an_object_that_knows_nothing_of_it(file, kept):
    thing = Thing()
    loaded = read_sections(raw(file, 4, with_apart({"color": 7})), [thing], None)
    assert loaded.kept() == ["card0.color"]
    loaded.apply()
    assert written(file, [thing]).record("card0")[APART] == {"color": 7}
    assert written(file, [thing], {"test-card": 2}).record("card0")[APART] == {"color": 7}


def test_unknown_optional_field_is_forgotten_with_the_next_state(file, kept):
    thing = Thing()
    read_sections(raw(file, 4, with_apart({"color": 7})), [thing], None).apply()
    read_sections(raw(file, 4, save(Card())), [thing], None).apply()
    assert APART not in written(file, [thing]).record("card0")


def test_unknown_optional_field_of_an_inner_state_that_is_made_anew_is_reported(
    file, kept, warnings
):
    record = save(Card(rings=[Ring()]))
    record["rings"][0]["fields"][APART] = {"color": 7}
    thing = Thing()
    loaded = read_sections(raw(file, 4, record), [thing], None)
    assert loaded.kept() == ["card0.rings[0].color"]
    loaded.apply()
    written(file, [thing])
    assert warnings == ["card0.rings[0]: color of a newer version does not go on"]


# ---------------------------------------------------------------- the host's side


def test_host_records_are_written_for_an_older_reader_and_come_up_again(kept):
    (item,) = host_records([Thing(a=3, rings=[Ring(at=1)])], Fds(), {"test-card": 2})
    assert (item["version"], load(Card, 2, item["record"]).a) == (2, 3)
    item["record"][APART] = {"color": 7}
    thing = Thing()
    load_host([item], lambda: [thing], Fds())
    assert thing.a == 3
    (again,) = host_records([thing], Fds())
    assert again["record"][APART] == {"color": 7}


def test_host_records_refuse_a_version_that_is_not_written():
    with pytest.raises(StateTooOldError, match=r"^card0: the reader wants state test-card as v1"):
        host_records([Thing()], Fds(), {"test-card": 1})


def test_host_state_that_is_not_understood_is_left_with_a_warning(warnings):
    record = {"id": "card0", "state": "test-card", "version": 9, "record": {}}
    load_host([record, 7, {**record, "id": "x"}, {**record, "id": 1}], lambda: [Thing()], Fds())
    assert warnings[0].startswith("card0: test-card: record is v9")
    assert len(warnings) == 4
