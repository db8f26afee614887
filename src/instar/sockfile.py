"""Socket files of the host: a stale one is replaced, and only who made one removes it."""

from __future__ import annotations

import _socket
import errno
import os
from stat import S_ISSOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

NONE: Final = (0, 0)  # the identity of a file that is not there


def identity(path: str) -> tuple[int, int]:
    """Return device and inode of a file, :data:`NONE` if it is not there."""
    try:
        found = os.lstat(path)
    except OSError:
        return NONE
    return found.st_dev, found.st_ino


def remove_ours(path: str, ours: tuple[int, int]) -> None:
    """Remove the socket file if it is still the one with this identity.

    Raises:
        OSError: the host refused; the file is still there.
    """
    if ours != NONE and identity(path) == ours:
        os.unlink(path)


def remove_stale(path: str, kind: int = _socket.SOCK_STREAM) -> None:
    """Remove a socket file that nobody uses any more; leave everything else alone.

    Args:
        path: Where somebody wants to listen.
        kind: Of the socket, ``SOCK_STREAM`` or ``SOCK_DGRAM``.

    Raises:
        OSError: somebody uses it, or it is no socket; it is still there.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "exists and is not a socket")
    probe = _socket.socket(_socket.AF_UNIX, kind)
    try:
        probe.settimeout(0)
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
        return
    except BlockingIOError:  # its backlog is full: somebody listens
        pass
    finally:
        probe.close()
    raise OSError(errno.EADDRINUSE, "another program listens on it")
