"""Sets of descriptors: numbers, access modes, and what an update keeps of them."""

from __future__ import annotations

import errno
import os

import pytest

from instar.cpr.errors import DescriptorError
from instar.cpr.fds import Fds
from instar.cpr.fdsets import FdSets, open_file


@pytest.fixture
def path(tmp_path) -> str:
    name = tmp_path / "file"
    name.write_bytes(b"content")
    return str(name)


@pytest.fixture
def table():
    fds = Fds()
    yield fds
    for entry in list(fds.walk()):
        os.close(entry.fd)


def test_added_descriptors_are_listed_by_set(table, path):
    sets = FdSets(table)
    first, second, third = (os.open(path, os.O_RDONLY) for _ in range(3))
    assert sets.add(first, 3, "rdonly:file") == 3
    assert sets.add(second) == 0
    assert sets.add(third, 3) == 3
    assert sets.members() == {
        0: [(second, "")],
        3: sorted([(first, "rdonly:file"), (third, "")]),
    }


def test_new_set_takes_the_lowest_free_number(table, path):
    sets = FdSets(table)
    numbers = [sets.add(os.open(path, os.O_RDONLY)) for _ in range(3)]
    sets.remove(1)
    assert numbers == [0, 1, 2]
    assert sets.add(os.open(path, os.O_RDONLY)) == 1


def test_sets_and_numbers_are_the_same_after_an_update(table, path):
    sets = FdSets(table)
    sets.add(os.open(path, os.O_RDWR), 7, "é: a disk")
    arrived = Fds.from_record(table.to_record())
    assert FdSets(arrived).members() == sets.members()
    assert arrived.unclaimed() == []


def test_removed_descriptor_is_closed(table, path):
    sets = FdSets(table)
    fd, kept = os.open(path, os.O_RDONLY), os.open(path, os.O_RDONLY)
    sets.add(fd, 1)
    sets.add(kept, 1)
    assert sets.remove(1, fd)
    assert not sets.remove(1, fd)
    assert not sets.remove(2)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert sets.members() == {1: [(kept, "")]}


def test_impossible_text_is_refused_and_the_descriptor_stays_the_callers(table, path):
    with open(path, "rb") as file, pytest.raises(DescriptorError):
        FdSets(table).add(file.fileno(), 1, "a\nb")
    assert FdSets(table).members() == {}


@pytest.mark.parametrize("access", [os.O_RDONLY, os.O_RDWR, os.O_WRONLY])
def test_opening_a_set_takes_the_descriptor_with_that_access(table, path, access):
    sets = FdSets(table)
    for mode in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY):
        sets.add(os.open(path, mode), 4)
    with os.fdopen(open_file("/dev/fdset/4", access | os.O_TRUNC, fds=table)) as file:
        assert os.get_inheritable(file.fileno()) is False
        assert file.fileno() not in {fd for fd, _ in sets.members()[4]}
    assert os.path.getsize(path) == 7


@pytest.mark.parametrize(("number", "error"), [(4, errno.EACCES), (5, errno.ENOENT)])
def test_set_without_that_access_or_no_set_is_an_error(table, path, number, error):
    FdSets(table).add(os.open(path, os.O_RDONLY), 4)
    with pytest.raises(OSError, match="/dev/fdset/") as caught:
        open_file(f"/dev/fdset/{number}", os.O_RDWR, fds=table)
    assert caught.value.errno == error


def test_other_paths_are_opened_as_ever(table, path):
    os.close(open_file(path, os.O_RDONLY, fds=table))
    with pytest.raises(FileNotFoundError):
        open_file("/dev/fdset/x", os.O_RDONLY, fds=table)


def test_inherited_descriptor_may_join_two_sets_and_is_closed(table, path):
    fd = os.open(path, os.O_RDWR)
    os.set_inheritable(fd, True)
    sets = FdSets(table)
    sets.add_inherited([(fd, 1, ""), (fd, 2, "again")])
    assert [members[0][1] for members in sets.members().values()] == ["", "again"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_standard_stream_or_private_descriptor_is_no_inherited_one(table, path):
    with open(path, "rb") as file, pytest.raises(DescriptorError, match="not inherited"):
        FdSets(table).add_inherited([(file.fileno(), 1, "")])
    with pytest.raises(DescriptorError, match="standard stream"):
        FdSets(table).add_inherited([(2, 1, "")])
