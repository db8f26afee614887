"""A raw disk without threads: opening, locking, carrying it over an update."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from instar.block.raw import BlockSpec, open_block
from instar.block.request import BlockRequest
from instar.block.state import BlockState
from instar.cpr import state as cpr_state
from instar.errors import CommandError, ConfigError, HostError
from instar.testing.fakes import FakeFds


@pytest.fixture
def path(tmp_path) -> str:
    name = tmp_path / "disk.img"
    name.write_bytes(bytes(range(256)) * 8)
    return str(name)


def disk(path, fds=None, *, read_only=False, active=True, discard=False):
    spec = BlockSpec("d0", path, read_only=read_only, discard=discard)
    return open_block(spec, fds or FakeFds(), lambda _call: None, inline=True, active=active)


def submit(block, op, offset=0, length=0, buffers=()) -> list[int]:
    errors: list[int] = []
    block.submit(BlockRequest(op, offset, length, list(buffers), errors.append))
    return errors


def test_inline_request_is_done_when_submit_returns(path):
    block = disk(path)
    data = bytearray(512)
    assert submit(block, "read", 512, 512, [memoryview(data)]) == [0]
    assert data == bytes(range(256)) * 2
    block.close()


def test_request_behind_the_end_is_refused(path):
    block = disk(path)
    assert submit(block, "write", 2048, 1, [memoryview(b"x")]) == [errno.EINVAL]
    assert block.size == 2048
    block.close()


@pytest.mark.parametrize("op", ["write", "discard", "write-zeroes"])
def test_read_only_disk_is_not_written(path, op):
    block = disk(path, read_only=True)
    assert submit(block, op, 0, 512) == [errno.EROFS]
    assert submit(block, "flush") == [0]
    block.close()


@pytest.mark.parametrize(("discard", "kept"), [(False, b"\1" * 2048), (True, bytes(2048))])
def test_discard_reaches_the_file_only_if_asked_for(path, discard, kept):
    Path(path).write_bytes(b"\1" * 2048)
    block = disk(path, discard=discard)
    assert submit(block, "discard", 0, 2048) == [0]
    assert Path(path).read_bytes() == kept
    block.close()


def test_read_only_disk_opens_a_file_without_write_permission(path):
    os.chmod(path, 0o400)
    disk(path, read_only=True).close()


def test_size_is_rounded_down_and_told(path, capfd):
    os.truncate(path, 1500)
    block = disk(path)
    assert block.size == 1024
    assert "1500 bytes; the last 476 are no whole sector" in capfd.readouterr().err
    block.close()


def test_disk_in_use_is_refused_with_its_name(path):
    block = disk(path)
    with pytest.raises(
        HostError, match=r'd0: failed to get "write" lock on .*disk\.img'
    ) as caught:
        disk(path)
    assert caught.value.__notes__ == ["hint: is another virtual machine using it?"]
    block.close()
    disk(path).close()


def test_disk_in_use_is_refused_to_readers_too(path):
    block = disk(path)
    with pytest.raises(HostError, match='failed to get "shared" lock'):
        disk(path, read_only=True)
    block.close()


def test_readers_share_a_disk(path):
    blocks = [disk(path, read_only=True) for _ in range(2)]
    for block in blocks:
        block.close()


def test_refusals_leave_no_descriptor_open(path, tmp_path):
    block = disk(path)
    before = os.listdir("/proc/self/fd")
    for name in (path, str(tmp_path), str(tmp_path / "absent"), "/dev/null"):
        with pytest.raises((HostError, ConfigError)):
            disk(name)
    assert os.listdir("/proc/self/fd") == before
    block.close()


@pytest.mark.parametrize(
    ("name", "text"),
    [("absent", "could not open .*absent: No such file"), ("", "could not open .*Is a directory")],
)
def test_path_that_cannot_be_opened_is_named(tmp_path, name, text):
    with pytest.raises(HostError, match=text):
        disk(str(tmp_path / name))


def test_path_that_is_no_disk_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="neither a file nor a block device"):
        disk(str(tmp_path / "fifo"))


def test_inherited_descriptor_goes_on_with_the_lock(path):
    fds = FakeFds()
    old = disk(path, fds)
    new = disk(path, fds)
    assert fds.find("block/d0", 0) == old._fd == new._fd
    with pytest.raises(HostError):
        disk(path)
    new.close()
    assert fds.find("block/d0", 0) == -1


def test_inherited_descriptor_of_a_removed_file_goes_on(path):
    fds = FakeFds()
    disk(path, fds)
    os.unlink(path)
    block = disk(path, fds)
    assert block.size == 2048
    block.close()


def test_inherited_descriptor_of_another_file_is_refused(path, tmp_path):
    fds = FakeFds()
    old = disk(path, fds)
    other = tmp_path / "other.img"
    other.write_bytes(bytes(512))
    with pytest.raises(ConfigError, match="is not the file that the running guest has"):
        disk(str(other), fds)
    assert submit(old, "flush") == [0]
    old.close()


def test_inherited_descriptor_with_other_access_is_refused(path):
    fds = FakeFds()
    old = disk(path, fds)
    with pytest.raises(ConfigError, match="has it writable, this command line not"):
        disk(path, fds, read_only=True)
    old.close()


def test_inactive_disk_has_no_lock_until_activated(path):
    owner = disk(path)
    waiting = disk(path, active=False)
    with pytest.raises(HostError):
        waiting.activate()
    owner.inactivate()
    waiting.activate()
    waiting.activate()
    with pytest.raises(HostError):
        owner.activate()
    owner.close()
    waiting.close()


def test_inactivate_of_a_reader_gives_its_lock_up(path):
    reader = disk(path, read_only=True)
    reader.inactivate()
    disk(path).close()
    reader.close()


def test_host_error_is_given_and_told(path, capfd):
    block = disk(path)
    os.truncate(path, 0)
    assert submit(block, "read", 0, 512, [memoryview(bytearray(512))]) == [errno.EIO]
    assert "disk d0: read of 512 bytes at 0 failed" in capfd.readouterr().err
    block.close()


def test_counters_count_by_kind_and_go_on_after_an_update(path):
    block = disk(path)
    submit(block, "write", 512, 512, [memoryview(bytes(512))])
    submit(block, "read", 0, 1024, [memoryview(bytearray(1024))])
    submit(block, "flush")
    submit(block, "discard", 0, 512)
    counted = block.state
    assert (counted.wr_bytes, counted.wr_operations, counted.wr_highest_offset) == (512, 1, 1024)
    assert (counted.rd_bytes, counted.rd_operations, counted.flush_operations) == (1024, 1, 1)
    assert (counted.unmap_bytes, counted.unmap_operations) == (512, 1)
    saved = cpr_state.save(block.save_state())
    block.close()
    new = disk(path)
    new.load_state(cpr_state.load(BlockState, 1, saved))
    submit(new, "flush")
    assert new.state.flush_operations == 2
    assert new.state.wr_bytes == 512
    new.close()


def test_failed_request_counts_as_failed(path):
    block = disk(path)
    os.truncate(path, 0)
    assert submit(block, "read", 0, 512, [memoryview(bytearray(512))]) == [errno.EIO]
    assert (block.state.failed_rd_operations, block.state.rd_operations) == (1, 0)
    block.close()


@pytest.mark.parametrize("size", [4096, 1024, 0])
def test_resize_changes_the_file(path, size):
    block = disk(path)
    block.resize(size)
    assert (block.size, os.path.getsize(path)) == (size, size)
    block.close()


@pytest.mark.parametrize("size", [-512, 513])
def test_resize_to_no_whole_sectors_is_refused(path, size):
    block = disk(path)
    with pytest.raises(CommandError, match=f"size {size} is not a multiple of 512"):
        block.resize(size)
    assert os.path.getsize(path) == block.size == 2048
    block.close()


def test_resize_of_a_read_only_disk_is_refused(path):
    block = disk(path, read_only=True)
    with pytest.raises(CommandError, match="read-only"):
        block.resize(4096)
    block.close()


def test_resize_that_the_host_refuses_changes_nothing(path):
    block = disk(path)
    with pytest.raises(HostError, match="cannot make"):
        block.resize((1 << 63) - 512)
    assert block.size == 2048
    block.close()
