"""Descriptors that clients gave under a name (``getfd``); the table of an update is where they are kept."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.cpr.fds import Fds

_OWNER: Final = "getfd"


class NamedFdTable:
    """Named descriptors of clients; they cross every update and are closed by name or at exit.

    Args:
        fds: Named descriptors that cross an update; those of the program before are taken over.
    """

    __slots__ = ("_fds",)

    def __init__(self, fds: Fds) -> None:
        self._fds = fds
        for entry in fds.walk(_OWNER):
            fds.find(entry.name, entry.ident)  # claims it

    def add(self, name: str, fd: int, /) -> None:
        """Keep ``fd`` (owned from now on) as ``name``; an earlier one of that name is closed.

        Raises:
            DescriptorError: The name cannot be one; the caller still owns ``fd``.
        """
        earlier = self._fds.find(_key(name), 0)
        self._fds.resave(_key(name), 0, fd, kind="given", owner=_OWNER)
        if earlier >= 0:
            os.close(earlier)

    def find(self, name: str, /) -> int:
        """Return the descriptor, which stays kept; -1 if there is none of that name."""
        return self._fds.find(_key(name), 0)

    def remove(self, name: str, /) -> bool:
        """Close and forget ``name``; False if there is none."""
        fd = self._fds.take(_key(name), 0)
        if fd >= 0:
            os.close(fd)
        return fd >= 0


def _key(name: str) -> str:
    return f"getfd/{name}"
