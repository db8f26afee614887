"""Sets of descriptors that a user gave: opening ``/dev/fdset/N`` takes the one of set N with the right access mode.

They are kept in the table of named descriptors alone, so sets and numbers stay through every update.

Source: own; names and behaviour are those of QEMU's fd sets.
"""

from __future__ import annotations

import errno
import fcntl
import os

from instar.cpr.errors import DescriptorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final, Protocol

    from instar.cpr.fds import Entry, Fds

    class Walkable(Protocol):
        """The table of named descriptors, to look at."""

        def walk(self, owner: str = "", /) -> Iterator[Entry]:
            """Yield the entries of an owner."""
            ...


PREFIX: Final = "/dev/fdset/"
_OWNER: Final = "fdset"
_FIRST: Final = 3  # 0 to 2 are the standard streams


def open_file(path: str, flags: int, mode: int = 0o600, *, fds: Walkable) -> int:
    """Open ``path`` as ``os.open`` does; of a set, a duplicate of its descriptor with the access mode of ``flags``.

    The duplicate shares position, locks and flags with the descriptor that the user gave; nothing is truncated.

    Raises:
        OSError: ENOENT: there is no such set; EACCES: none of its descriptors has that access; or the host refused.
    """
    number = path.removeprefix(PREFIX)
    if number == path or not (number.isascii() and number.isdigit()):
        return os.open(path, flags, mode)
    members = [entry for entry in fds.walk(_OWNER) if entry.name == f"{_OWNER}/{int(number)}"]
    for entry in members:
        if fcntl.fcntl(entry.fd, fcntl.F_GETFL) & os.O_ACCMODE == flags & os.O_ACCMODE:
            return fcntl.fcntl(entry.fd, fcntl.F_DUPFD_CLOEXEC, _FIRST)
    code = errno.EACCES if members else errno.ENOENT
    raise OSError(code, os.strerror(code), path)


class FdSets:
    """The sets; a descriptor in one is owned by it.

    Args:
        fds: Named descriptors that cross an update; those of the program before are taken over.
    """

    __slots__ = ("_fds",)

    def __init__(self, fds: Fds) -> None:
        self._fds = fds
        self.members()

    def members(self) -> dict[int, list[tuple[int, str]]]:
        """Return, by set, the descriptors and what was said of each ("" if nothing)."""
        found: dict[int, list[tuple[int, str]]] = {}
        for entry in self._fds.walk(_OWNER):
            number = int(entry.name.partition("/")[2])
            found.setdefault(number, []).append((entry.ident, entry.kind))
        return dict(sorted(found.items()))

    def add(self, fd: int, number: int = -1, opaque: str = "") -> int:
        """Put ``fd`` (owned from now on) into a set and return the set's number.

        Args:
            fd: An open descriptor.
            number: The set; it is made if it is not there. -1: the lowest that is free.
            opaque: Shown by :meth:`members`; at most 255 printable bytes.

        Raises:
            DescriptorError: a text or number is not possible; the caller still owns ``fd``.
        """
        if number < 0:
            taken = self.members()
            number = next(n for n in range(len(taken) + 1) if n not in taken)
        self._fds.save(f"{_OWNER}/{number}", fd, fd, kind=opaque, owner=_OWNER)
        return number

    def add_inherited(self, wishes: list[tuple[int, int, str]]) -> None:
        """Put descriptors that the program was started with into sets, as (descriptor, set, opaque).

        The sets get duplicates; afterwards the originals are closed, so one may be named several times.

        Raises:
            DescriptorError: one is a standard stream, or not open, or was not inherited.
        """
        for fd, number, opaque in wishes:
            _check_inherited(fd)
            self.add(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST), number, opaque)
        for fd in {fd for fd, _, _ in wishes}:
            os.close(fd)

    def remove(self, number: int, fd: int = -1) -> bool:
        """Close and forget ``fd`` of a set, or with -1 the whole set; False if there is none."""
        gone = [member for member, _ in self.members().get(number, []) if fd in {-1, member}]
        for member in gone:
            self._fds.delete(f"{_OWNER}/{number}", member)
            os.close(member)
        return bool(gone)


def _check_inherited(fd: int) -> None:
    if fd < _FIRST:
        raise DescriptorError(f"-add-fd: fd={fd} is a standard stream; nothing was started")
    try:
        inherited = os.get_inheritable(fd)
    except OSError:
        inherited = False
    if not inherited:
        raise DescriptorError(
            f"-add-fd: fd={fd} is not open, or was not inherited; nothing was started"
        )
