"""The table of named descriptors."""

import contextlib
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr import fds as fds_module
from instar.cpr.encoding import decode, encode
from instar.cpr.errors import CprError, DescriptorError, PeerError
from instar.cpr.fds import Fds


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def keys(fds):
    return [(entry.name, entry.ident) for entry in fds.walk()]


def test_find_saved_name_gives_the_descriptor(pipe):
    fds = Fds()
    fds.save("ram0", 3, pipe[0], kind="memory", owner="memory")
    assert fds.find("ram0", 3) == pipe[0]
    assert fds.find("ram0", 0) == -1


def test_save_taken_name_is_refused_and_changes_nothing(pipe):
    fds = Fds()
    fds.save("a", 0, pipe[0])
    with pytest.raises(DescriptorError, match="a/0 is already kept"):
        fds.save("a", 0, pipe[1])
    assert fds.find("a", 0) == pipe[0]


def test_save_descriptor_under_a_second_name_is_refused(pipe):
    fds = Fds()
    fds.save("a", 0, pipe[0])
    with pytest.raises(DescriptorError, match="already kept as a/0"):
        fds.resave("b", 0, pipe[0])
    assert keys(fds) == [("a", 0)]


def test_resave_replaces_the_descriptor(pipe):
    fds = Fds()
    fds.resave("a", 0, pipe[0])
    fds.resave("a", 0, pipe[1])
    fds.save("b", 0, pipe[0])
    assert (fds.find("a", 0), fds.find("b", 0)) == (pipe[1], pipe[0])


@pytest.mark.parametrize(
    ("name", "ident"),
    [("", 0), ("x" * 256, 0), ("a\nb", 0), ("a\0", 0), ("\ud800", 0), ("a", -1), ("a", 1 << 31)],
)
def test_save_name_or_id_out_of_range_is_refused(pipe, name, ident):
    fds = Fds()
    with pytest.raises(DescriptorError):
        fds.save(name, ident, pipe[0])
    assert keys(fds) == []


@pytest.mark.parametrize("fd", [-1, 1 << 20, 1 << 40])
def test_save_descriptor_that_is_not_open_is_refused(fd):
    with pytest.raises(DescriptorError, match="is not open"):
        Fds().save("a", 0, fd)


def test_save_into_a_full_table_is_refused(pipe, monkeypatch):
    monkeypatch.setattr(fds_module, "MAX_ENTRIES", 1)
    fds = Fds()
    fds.save("a", 0, pipe[0])
    with pytest.raises(DescriptorError, match="are the limit"):
        fds.save("b", 0, pipe[1])
    fds.resave("a", 0, pipe[1])


def test_take_forgets_the_name_and_leaves_it_open(pipe):
    fds = Fds()
    fds.save("a", 0, pipe[0])
    assert fds.take("a", 0) == pipe[0]
    assert fds.take("a", 0) == -1
    os.fstat(pipe[0])


def test_delete_says_whether_there_was_one(pipe):
    fds = Fds()
    fds.save("a", 0, pipe[0])
    assert fds.delete("a", 0)
    assert not fds.delete("a", 0)


def test_walk_goes_in_the_order_of_keys_and_by_owner(pipe):
    fds = Fds()
    fds.save("b", 0, pipe[0], owner="one")
    fds.save("a", 1, pipe[1], owner="two")
    assert keys(fds) == [("a", 1), ("b", 0)]
    assert [entry.name for entry in fds.walk("one")] == ["b"]


def test_copy_is_independent(pipe):
    fds = Fds()
    fds.save("a", 0, pipe[0])
    other = fds.copy()
    other.save("b", 0, pipe[1])
    other.delete("a", 0)
    assert keys(fds) == [("a", 0)]
    with pytest.raises(DescriptorError):
        fds.save("c", 0, pipe[0])


# ---------------------------------------------------------------- crossing


def cross(fds):
    return Fds.from_record(decode(encode(fds.to_record()), "table"))


def test_cross_keeps_names_numbers_and_owners(pipe):
    fds = Fds()
    fds.save("a", 1, pipe[0], kind="pipe", owner="test")
    (entry,) = cross(fds).walk()
    assert (entry.name, entry.ident, entry.fd, entry.kind, entry.owner) == (
        "a",
        1,
        pipe[0],
        "pipe",
        "test",
    )


def test_cross_standard_stream_is_known_as_one(pipe):
    fds = Fds()
    fds.save("out", 0, 1)
    fds.save("pipe", 0, pipe[0])
    assert [entry.stream for entry in cross(fds).walk()] == [os.get_inheritable(1), False]


def test_unclaimed_are_those_that_nobody_found(pipe):
    fds = Fds()
    fds.save("found", 0, pipe[0])
    fds.save("left", 0, pipe[1])
    assert fds.unclaimed() == []
    arrived = cross(fds)
    arrived.find("found", 0)
    assert [entry.name for entry in arrived.unclaimed()] == ["left"]


def test_walk_by_owner_claims(pipe):
    fds = Fds()
    fds.save("a", 0, pipe[0], owner="me")
    arrived = cross(fds)
    assert [entry.fd for entry in arrived.walk("me")] == [pipe[0]]
    assert arrived.unclaimed() == []


def test_close_unclaimed_closes_and_reports_them(pipe):
    fds = Fds()
    fds.save("left", 0, pipe[1])
    arrived = cross(fds)
    assert arrived.close_unclaimed() == ["left/0"]
    assert keys(arrived) == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pipe[1])


def test_cross_descriptor_that_became_another_file_is_refused(pipe):
    fds = Fds()
    fds.save("a", 0, pipe[0])
    record = fds.to_record()
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, pipe[0], inheritable=False)
    os.close(null)
    with pytest.raises(DescriptorError, match="is not what was saved"):
        Fds.from_record(record)
    with pytest.raises(DescriptorError, match="is not what was saved"):
        fds.verify()


def test_verify_closed_descriptor_is_refused(pipe):
    fds = Fds()
    fds.save("a", 0, pipe[0])
    os.close(pipe[0])
    with pytest.raises(DescriptorError, match="is not open"):
        fds.verify()


def test_verify_eventfd_replaced_by_another_is_refused():
    first, second = os.eventfd(0), os.eventfd(0)
    fds = Fds()
    fds.save("kick", 0, first)
    fds.verify()
    os.dup2(second, first, inheritable=False)
    try:
        with pytest.raises(DescriptorError, match="is not what was saved"):
            fds.verify()
    finally:
        os.close(first)
        os.close(second)


def test_cross_same_name_twice_is_refused(pipe):
    fds = Fds()
    fds.save("a", 0, pipe[0])
    with pytest.raises(PeerError, match="arrived twice"):
        Fds.from_record(fds.to_record() * 2)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 1),
        ("id", True),
        ("id", "0"),
        ("fd", None),
        ("fd", True),
        ("identity", []),
        ("kind", 0),
        ("owner", b""),
        ("stream", 1),
    ],
)
def test_cross_malformed_row_is_refused(pipe, key, value):
    fds = Fds()
    fds.save("a", 0, pipe[0])
    (row,) = fds.to_record()
    with pytest.raises(PeerError, match=f"bad {key}"):
        Fds.from_record([{**row, key: value}])


@pytest.mark.parametrize("record", [None, {}, [1], [{}], [{"name": "a"}]])
def test_cross_something_that_is_no_table_is_refused(record):
    with pytest.raises(PeerError):
        Fds.from_record(record)


rows = st.fixed_dictionaries(
    {
        "name": st.text(max_size=3),
        "id": st.integers(-2, 3),
        "fd": st.integers(-2, 5) | st.integers(1 << 31, 1 << 64),
        "kind": st.text(max_size=2),
        "owner": st.text(max_size=2),
        "stream": st.booleans(),
        "identity": st.dictionaries(st.sampled_from(["dev", "ino", "type"]), st.integers(0, 9)),
    }
)


@settings(max_examples=100)
@given(st.lists(rows, min_size=1, max_size=3))
def test_cross_any_rows_with_wrong_identities_are_refused(record):
    with pytest.raises(CprError):
        Fds.from_record(record)
