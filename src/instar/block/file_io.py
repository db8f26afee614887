"""The system calls behind a raw disk: whole transfers, holes, zeroes, and the lock.

Source: Linux's read(2), fallocate(2) (reached by ioctl: `os` has no fallocate with a mode), fcntl(2) "open file
description locks".
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.block.request import BlockRequest

_IOV_MAX: Final = 1024
_ZEROES: Final = bytes(
    1 << 20
)  # bytes; written again and again where the host cannot zero a range
_FLOCK: Final = Struct("hhqqi4x")  # struct flock: type, whence, start, length, pid
_SPACE: Final = Struct("hhqqiI16x")  # struct space_resv: type, whence, start, length, sysid, pid
_RANGE: Final = Struct("QQ")  # start, length
_FS_IOC_UNRESVSP64: Final = 0x4030_582B  # fallocate(PUNCH_HOLE | KEEP_SIZE), Linux 5.5
_FS_IOC_ZERO_RANGE: Final = 0x4030_5839  # fallocate(ZERO_RANGE | KEEP_SIZE), Linux 5.5
_BLKDISCARD: Final = 0x1277
_BLKZEROOUT: Final = 0x127F
_UNSUPPORTED: Final = frozenset(
    {errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV}
)


def lock(fd: int, *, exclusive: bool) -> bool:
    """Lock the whole file for this open file description; return False if another has it."""
    return _lock(fd, fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK)


def try_lock(fd: int, *, exclusive: bool) -> bool:
    """Do what :func:`lock` does; a file system without locks protects nobody, and refuses nobody."""
    try:
        return lock(fd, exclusive=exclusive)
    except OSError:
        return True


def unlock(fd: int) -> None:
    """Give the lock up."""
    _lock(fd, fcntl.F_UNLCK)


def _lock(fd: int, kind: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
    except OSError as e:
        if e.errno in {errno.EAGAIN, errno.EACCES}:
            return False
        raise
    return True


def perform(fd: int, request: BlockRequest) -> int:
    """Carry ``request`` out and return 0 or the errno; what a failed one changed is undefined."""
    try:
        _OPERATIONS[request.op](fd, request)
        if request.durable:
            os.fdatasync(fd)
    except OSError as e:
        return e.errno or errno.EIO
    return 0


def _read(fd: int, request: BlockRequest) -> None:
    buffers, offset = request.buffers, request.offset
    while buffers:
        count = os.preadv(fd, buffers[:_IOV_MAX], offset)
        if count == 0:  # somebody cut the file while it was in use
            raise OSError(errno.EIO, "end of file inside the disk")
        offset += count
        buffers = _after(buffers, count)


def read_cached(fd: int, request: BlockRequest) -> bool:
    """Carry a read out if that needs no waiting for the disk; False if it does, or the host cannot tell."""
    buffers = request.buffers
    if len(buffers) > _IOV_MAX:
        return False
    try:
        return os.preadv(fd, buffers, request.offset, os.RWF_NOWAIT) == request.length
    except OSError:  # not cached, not supported, or failed: a worker finds out
        return False


def _write(fd: int, request: BlockRequest) -> None:
    buffers, offset = request.buffers, request.offset
    while buffers:
        count = os.pwritev(fd, buffers[:_IOV_MAX], offset)
        offset += count
        buffers = _after(buffers, count)


def _after(buffers: list[memoryview], count: int) -> list[memoryview]:
    """Return what is left of ``buffers`` behind the first ``count`` bytes."""
    for n, view in enumerate(buffers):
        if count < len(view):
            return [view[count:], *buffers[n + 1 :]] if count else buffers[n:]
        count -= len(view)
    return []


def _flush(fd: int, _request: BlockRequest) -> None:
    os.fdatasync(fd)


def _discard(fd: int, request: BlockRequest) -> None:
    if not _change_range(fd, request, _FS_IOC_UNRESVSP64, _BLKDISCARD):
        raise OSError(errno.EOPNOTSUPP, "the host cannot discard here")


def _write_zeroes(fd: int, request: BlockRequest) -> None:
    if request.unmap and _is_file(fd) and _change_range(fd, request, _FS_IOC_UNRESVSP64, 0):
        return  # a hole of a file reads as zeroes; discarded sectors of a device need not
    if _change_range(fd, request, _FS_IOC_ZERO_RANGE, _BLKZEROOUT):
        return
    offset, left = request.offset, request.length
    while left:
        count = os.pwrite(fd, memoryview(_ZEROES)[:left], offset)
        offset += count
        left -= count


def _is_file(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


def _change_range(fd: int, request: BlockRequest, for_file: int, for_device: int) -> bool:
    """Ask the host to discard or zero; return False if it cannot do that here."""
    try:
        if _is_file(fd):
            space = _SPACE.pack(0, os.SEEK_SET, request.offset, request.length, 0, 0)
            fcntl.ioctl(fd, for_file, space)
        else:
            fcntl.ioctl(fd, for_device, _RANGE.pack(request.offset, request.length))
    except OSError as e:
        if e.errno in _UNSUPPORTED:
            return False
        raise
    return True


_OPERATIONS: Final = {
    "read": _read,
    "write": _write,
    "flush": _flush,
    "discard": _discard,
    "write-zeroes": _write_zeroes,
}
