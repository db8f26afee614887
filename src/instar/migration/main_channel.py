"""Where the old program writes the machine's state: a file that people named, a memfd that goes along, or both.

Not on the resume path. Source: own; texts as QEMU's.
"""

from __future__ import annotations

import os
import stat

from instar import log
from instar.block import file_io
from instar.errors import HostError
from instar.migration.channels import open_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.cpr.writer import Writer
    from instar.migration.channels import Address

TURN: Final = 16 << 20  # bytes written in one turn of the main loop
SPACE: Final = (
    1 << 20
)  # bytes a state without RAM may take; asked of the file system before the guest stops
_CANNOT_TELL: Final = (95, 22, 19)  # EOPNOTSUPP, EINVAL, ENODEV


class MainChannel:
    """One channel, for one migration.

    Args:
        address: The file; with an empty path there is none.

    Attributes:
        memfd: What goes along; -1: nothing does.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self.memfd = -1
        self._file = -1
        self._created = False
        self._size = -1  # of a file that was there before, bytes

    @property
    def fd(self) -> int:
        """Where the state is written first."""
        return self.memfd if self.memfd >= 0 else self._file

    @property
    def offset(self) -> int:
        """Where in ``fd`` it begins, bytes."""
        return 0 if self.memfd >= 0 else self._address.offset

    def make_memfd(self) -> None:
        """Make what goes along; OSError."""
        self.memfd = os.memfd_create("instar-migration", os.MFD_CLOEXEC)

    def open(self, *, along: bool, reserve: bool) -> None:
        """Open it.

        Args:
            along: The state goes along with this process.
            reserve: Make sure that a file has room for a state without RAM.

        Raises:
            HostError: The host refused; :meth:`close` is still needed.
        """
        address = self._address
        try:
            if along:
                self.make_memfd()
            if not address.path:
                return
            self._open_file(address.path)
            self._check_free(address.path)
            info = os.fstat(self._file)
            if stat.S_ISREG(info.st_mode):
                self._size = info.st_size
                if reserve:
                    _reserve(self._file, address.offset)
        except OSError as e:
            raise HostError(
                f"cannot open migration file {address.path}: {os.strerror(e.errno or 0)}"
            ) from e

    def _open_file(self, path: str) -> None:
        try:
            self._file = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            self._created = True
        except FileExistsError:
            self._file = open_file(path, os.O_WRONLY)

    def _check_free(self, path: str) -> None:
        """Refuse what a machine uses, even this one: as a disk, as memory, or to save itself there now."""
        if not file_io.try_lock(self._file, exclusive=True):
            raise HostError(
                f"cannot open migration file {path}: a machine uses it; nothing was written to it"
            )

    def write_some(self, writer: Writer) -> bool:
        """Write one turn's worth; true if that was all.

        Raises:
            HostError: The host refused; what was written is useless.
        """
        try:
            if not writer.step(TURN):
                return False
            if self.memfd >= 0 and self._file >= 0:
                _copy(self.memfd, self._file, self._address.offset)
            if self._file >= 0 and stat.S_ISREG(os.fstat(self._file).st_mode):
                os.ftruncate(self._file, self._address.offset + writer.written)
        except OSError as e:
            raise HostError(
                f"Unable to write to file {self._address.path}: {os.strerror(e.errno or 0)}"
            ) from e
        return True

    def sync(self) -> None:
        """Bring what was written to the disk; HostError."""
        try:
            os.fsync(self._file)
        except OSError as e:
            raise HostError(
                f"cannot bring migration file {self._address.path} to the disk: {os.strerror(e.errno or 0)}"
            ) from e

    def keep(self) -> None:
        """Close the file for good: it is what this migration was for."""
        os.close(self._file)
        self._file = -1
        self._created = False

    def close(self) -> None:
        """Close it; remove a file that this migration made, give one that was there its size back."""
        if self.memfd >= 0:
            os.close(self.memfd)
            self.memfd = -1
        if self._file >= 0:
            if self._size >= 0 and not self._created:
                os.ftruncate(self._file, self._size)
            os.close(self._file)
            self._file = -1
        if self._created:
            self._created = False
            _remove(self._address.path)


def _copy(source: int, target: int, offset: int) -> None:
    """Write all of a memfd to a file, from ``offset`` on."""
    data = memoryview(os.pread(source, os.fstat(source).st_size, 0))
    while data:
        count = os.pwrite(target, data, offset)
        offset += count
        data = data[count:]


def _remove(path: str) -> None:
    """Remove a file; that it cannot be removed is no reason to lose the reason of the failure."""
    try:
        os.unlink(path)
    except FileNotFoundError:  # somebody did it: nothing left to undo
        return
    except OSError as e:
        log.warning(f"migration file {path}: {os.strerror(e.errno or 0)}; it was not removed")


def _reserve(fd: int, offset: int) -> None:
    """Make the file system find the room now, while the guest runs; those that cannot tell are trusted."""
    try:
        os.posix_fallocate(fd, offset, SPACE)
    except OSError as e:
        if e.strerror and e.errno not in _CANNOT_TELL:
            raise
