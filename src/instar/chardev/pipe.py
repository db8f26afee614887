"""``pipe``: two named pipes, ``PATH.in`` for input and ``PATH.out`` for output, or one file for both.

Both are opened for reading and writing, so that whoever is at the other end may come and go: no end of file is seen,
and what was written waits in the pipe.
"""

from __future__ import annotations

import os

from instar.chardev.base import FD_OWNER, FdChardev
from instar.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.chardev.base import FdTable
    from instar.loop import Loop


class PipeChardev(FdChardev):
    """A pair of named pipes that exist already.

    Args:
        ident: Unique id.
        path: Without ``.in`` and ``.out``. Where those are not, the file of this name serves both ways; if that is a
            pipe, its two users must take turns, since each may read what it wrote.
        loop: The main loop.
        fds: Descriptors of the program before; those of this id are used as they are.

    Raises:
        HostError: They cannot be opened; nothing was created.
    """

    __slots__ = ("path",)

    def __init__(self, ident: str, path: str, loop: Loop, fds: FdTable) -> None:
        super().__init__(ident, loop)
        self.path = path
        self._in_fd = fds.take(self.state_id, 0)
        self._out_fd = fds.take(self.state_id, 1)
        self.adopted = self._in_fd >= 0
        if not self.adopted:
            self._in_fd, self._out_fd = self._open()
        elif self._out_fd < 0:
            self._out_fd = self._in_fd

    @property
    def filename(self) -> str:
        """What ``query-chardev`` shows."""
        return f"pipe:{self.path}"

    def save_fds(self, fds: FdTable) -> None:
        """Name the descriptors; one that serves both ways has one name."""
        fds.resave(self.state_id, 0, self._in_fd, owner=FD_OWNER)
        if self._out_fd != self._in_fd:
            fds.resave(self.state_id, 1, self._out_fd, owner=FD_OWNER)

    def close(self) -> None:
        """Close both; the pipes stay where they are."""
        super().close()
        self._flush_at_exit()
        for fd in {self._in_fd, self._out_fd} - {-1}:
            os.close(fd)
        self._in_fd = self._out_fd = -1

    def _open(self) -> tuple[int, int]:
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            in_fd = os.open(f"{self.path}.in", flags)
        except FileNotFoundError:
            in_fd = -1
        except OSError as e:
            raise self._error(f"{self.path}.in", e) from e
        path = self.path if in_fd < 0 else f"{self.path}.out"
        try:
            out_fd = os.open(path, flags)
        except OSError as e:
            if in_fd >= 0:
                os.close(in_fd)
            raise self._error(path, e) from e
        return (out_fd if in_fd < 0 else in_fd), out_fd

    def _error(self, path: str, error: OSError) -> HostError:
        return HostError(f"chardev {self.id}: cannot open {path}: {error.strerror}")

    def _end_of_input(self) -> None:
        """Read no more: what is there is no pipe, and has ended."""
        self._in_fd, fd = -1, self._in_fd
        self.connected = False
        self._event("closed")
        self._rewatch()
        if fd != self._out_fd:
            os.close(fd)
