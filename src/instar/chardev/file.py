"""``file``: output to a file; an update neither truncates it nor loses its position."""

from __future__ import annotations

import os

from instar.chardev.base import FD_OWNER, FdChardev
from instar.cpr.fdsets import open_file
from instar.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.chardev.base import FdTable
    from instar.loop import Loop

_RETRY_NS: Final = 1_000_000_000  # a full disk is tried again after this


class FileChardev(FdChardev):
    """Write to ``path``.

    Args:
        ident: Unique id.
        path: File to write, or /dev/fdset/N; created with mode 0600 if it does not exist.
        append: Keep what is in it; otherwise it is emptied (not after an update).
        loop: The main loop.
        fds: Descriptors of the program before; one of this id is used as it is.

    Raises:
        HostError: The file cannot be opened.
    """

    __slots__ = ("_retry", "path")

    def __init__(self, ident: str, path: str, loop: Loop, fds: FdTable, *, append: bool) -> None:
        super().__init__(ident, loop)
        self.path = path
        self._retry = False
        self._out_fd = fds.take(self.state_id, 0)
        self.adopted = self._out_fd >= 0
        if not self.adopted:
            mode = os.O_APPEND if append else os.O_TRUNC
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | mode
            try:
                self._out_fd = open_file(path, flags, fds=fds)
            except OSError as e:
                raise HostError(f"chardev {ident}: cannot open {path}: {e.strerror}") from e

    @property
    def filename(self) -> str:
        """What ``query-chardev`` shows."""
        return "file"

    def save_fds(self, fds: FdTable) -> None:
        """Name the file's descriptor."""
        fds.resave(self.state_id, 0, self._out_fd, owner=FD_OWNER)

    def close(self) -> None:
        """Close the file."""
        super().close()
        self._out.clear()
        self._rewatch()
        if self._out_fd >= 0:
            os.close(self._out_fd)
            self._out_fd = -1

    def _rewatch(self) -> None:
        """Wait for a timer while the host refuses; a file is always ready and would spin."""
        if not self._retry:
            super()._rewatch()

    def _output_failed(self, error: OSError, length: int) -> int:
        del error, length
        if self._watched_out >= 0:
            self._loop.unwatch(self._watched_out)
            self._watched_out = -1
        self._retry = True
        self._loop.call_later(_RETRY_NS, self._try_again)
        return 0  # full disk, quota: everything is kept

    def _try_again(self) -> None:
        self._retry = False
        self._rewatch()
