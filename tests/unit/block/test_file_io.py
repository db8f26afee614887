"""System calls on a small file: whole transfers, holes, zeroes, locks."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.block import file_io
from instar.block.request import BlockRequest


def request(op, offset=0, length=0, buffers=(), **flags) -> BlockRequest:
    return BlockRequest(op, offset, length, list(buffers), lambda _error: None, **flags)


@pytest.fixture
def fd(tmp_path):
    number = os.open(tmp_path / "disk", os.O_RDWR | os.O_CREAT)
    os.write(number, bytes(range(256)) * 64)
    yield number
    os.close(number)


def test_read_fills_all_buffers(fd):
    first, second = bytearray(10), bytearray(20)
    assert (
        file_io.perform(fd, request("read", 5, 30, [memoryview(first), memoryview(second)])) == 0
    )
    assert bytes(first + second) == bytes(range(5, 35))


def test_write_takes_all_buffers(fd):
    parts = [memoryview(b"ab"), memoryview(b""), memoryview(b"cde")]
    assert file_io.perform(fd, request("write", 7, 5, parts, durable=True)) == 0
    assert os.pread(fd, 7, 6) == b"\x06abcde\x0c"


def test_more_buffers_than_a_vector_holds(fd):
    data = [memoryview(bytes((n & 0xFF,))) for n in range(2500)]
    assert file_io.perform(fd, request("write", 0, 2500, data)) == 0
    back = bytearray(2500)
    views = [memoryview(back)[n : n + 1] for n in range(2500)]
    assert file_io.perform(fd, request("read", 0, 2500, views)) == 0
    assert back == b"".join(data)


def test_read_behind_the_end_is_an_io_error(fd):
    os.ftruncate(fd, 100)
    assert file_io.perform(fd, request("read", 0, 200, [memoryview(bytearray(200))])) == errno.EIO


def test_flush_of_something_that_cannot_gives_its_errno():
    reader, writer = os.pipe()
    assert file_io.perform(writer, request("flush")) == errno.EINVAL
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("unmap", [False, True])
def test_write_zeroes_zeroes_the_range_and_nothing_else(fd, unmap):
    assert file_io.perform(fd, request("write-zeroes", 4096, 4096, unmap=unmap)) == 0
    assert os.pread(fd, 8192, 2048) == bytes(range(256)) * 8 + bytes(4096) + bytes(range(256)) * 8
    assert os.fstat(fd).st_size == 256 * 64


def test_write_zeroes_where_the_host_cannot_writes_them(fd, monkeypatch):
    def refuse(*_arguments):
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    assert file_io.perform(fd, request("write-zeroes", 1, 3000)) == 0
    assert os.pread(fd, 3002, 0) == b"\0" + bytes(3000) + bytes((3001 & 0xFF,))


def test_discard_where_the_host_cannot_says_so(fd, monkeypatch):
    def refuse(*_arguments):
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    assert file_io.perform(fd, request("discard", 0, 4096)) == errno.EOPNOTSUPP


def test_discard_that_fails_gives_its_errno(fd, monkeypatch):
    def refuse(*_arguments):
        raise OSError(errno.ENOSPC, "no")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    assert file_io.perform(fd, request("discard", 0, 4096)) == errno.ENOSPC


def test_discard_reads_back_as_zeroes(fd):
    assert file_io.perform(fd, request("discard", 0, 4096)) == 0
    assert os.pread(fd, 4096, 0) == bytes(4096)


@pytest.mark.parametrize(
    ("first", "second", "got"), [(True, True, False), (True, False, False), (False, False, True)]
)
def test_lock_of_two_open_descriptions(fd, tmp_path, first, second, got):
    other = os.open(tmp_path / "disk", os.O_RDWR)
    assert file_io.lock(fd, exclusive=first)
    assert file_io.lock(other, exclusive=second) is got
    file_io.unlock(fd)
    assert file_io.lock(other, exclusive=second)
    os.close(other)


def test_lock_again_by_the_same_open_description(fd):
    copy = os.dup(fd)
    assert file_io.lock(fd, exclusive=True)
    assert file_io.lock(copy, exclusive=True)
    os.close(copy)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=9), max_size=9), st.integers(0, 90))
def test_after_drops_exactly_the_first_bytes(parts, count):
    whole = b"".join(parts)
    count = min(count, len(whole))
    left = file_io._after([memoryview(part) for part in parts], count)
    assert b"".join(left) == whole[count:]


def test_read_that_needs_no_waiting_is_whole_or_not_done(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        whole, short = bytearray(4), bytearray(4)
        inside = BlockRequest("read", 3, 4, [memoryview(whole)], print)
        behind = BlockRequest("read", 8, 4, [memoryview(short)], print)
        done = file_io.read_cached(file.fileno(), inside)
        assert whole == (b"3456" if done else bytes(4))
        assert not file_io.read_cached(file.fileno(), behind)
    assert not file_io.read_cached(-1, inside)
