"""Who may go on: a small file, locked so that the kernel gives the lock back when its holder dies.

Two bytes are locked, by open file description (so a lock passes through ``exec`` with its descriptor, and a descriptor
that was opened anew contends for it). All that inherits a descriptor shares its locks, so whoever decides opens the
file anew:

* byte 0, *the work*: whoever may run the guest (or serve the clients) holds it.
* byte 1, *the decision* of one update: the new program commits by locking it; who would end it (the guardian, the
  program before) locks it first. Only one of them gets it.

The content is a counter of commits. A program whose own count was passed by holds stale state and must never go on.

Source: own; Linux's fcntl(2), "Open file description locks".
"""

from __future__ import annotations

import errno
import fcntl
import os
from struct import Struct

from instar.cpr.errors import TakenOverError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

WORK: Final = 0
DECISION: Final = 1
_FLOCK: Final = Struct("hhqqi4x")  # struct flock: type, whence, start, length, pid
_COUNT: Final = Struct("<Q")
_TOO_SLOW: Final = (
    "another program has taken over: this one was too slow; it ends without touching the guest"
)
_AT: Final = 8  # where the counter is, behind the locked bytes


class Lease:
    """One open file of the lease.

    Attributes:
        fd: Close-on-exec; named ``cpr/lease`` by who keeps it through updates. Closing it is the owner's business.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def create(cls) -> Lease:
        """Make a lease that nobody holds, with a count of 0; OSError if the host has no descriptor left."""
        fd = os.memfd_create("instar-lease", os.MFD_CLOEXEC)
        os.pwrite(fd, _COUNT.pack(0), _AT)
        return cls(fd)

    def reopen(self) -> Lease:
        """Return the same lease as a contender of its own; OSError without /proc."""
        return Lease(os.open(f"/proc/self/fd/{self.fd}", os.O_RDWR | os.O_CLOEXEC))

    @property
    def count(self) -> int:
        """How many programs committed so far."""
        data = os.pread(self.fd, _COUNT.size, _AT)
        return int(_COUNT.unpack(data)[0]) if len(data) == _COUNT.size else 0

    def lock(self, byte: int) -> bool:
        """Take a byte; having it is fine. False if another open file has it."""
        return self._set(byte, fcntl.F_WRLCK)

    def unlock(self, byte: int) -> None:
        """Give a byte up; not having it is fine."""
        self._set(byte, fcntl.F_UNLCK)

    def commit(self, expected: int = -1) -> None:
        """Decide that this program goes on, and count it; the decision stays taken until :meth:`unlock`.

        Args:
            expected: The count when the two programs agreed to hand over; -1: whatever it is.

        Raises:
            TakenOverError: Somebody else decided first; this program must end without touching anything.
        """
        if not self.lock(DECISION):
            raise TakenOverError(_TOO_SLOW)
        if expected >= 0 and self.count != expected:
            self.unlock(DECISION)
            raise TakenOverError(_TOO_SLOW)
        os.pwrite(self.fd, _COUNT.pack(self.count + 1), _AT)

    def _set(self, byte: int, kind: int) -> bool:
        try:
            fcntl.fcntl(self.fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
        except OSError as exc:
            if exc.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True
