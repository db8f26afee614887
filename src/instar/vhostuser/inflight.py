"""The memory in which a back end lists what it has under way: it outlives the back end, and us.

We keep it and hand it to whoever serves the rings next; only back ends look into it.

Source: QEMU docs/interop/vhost-user, "Inflight I/O tracking".
"""

from __future__ import annotations

import os
from stat import S_ISREG

from instar.vhostuser import protocol as p

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.cpr.fds import Fds
    from instar.vhostuser.connection import Connection

FD_OWNER: Final = "vhost-user"
_IDENT: Final = 2  # id of its named descriptor


class Inflight:
    """The region of one back end, if it has one.

    Args:
        name: Of its descriptor.
        fds: Named descriptors.

    Attributes:
        layout: Sizes, as the back end that made it told them.
    """

    __slots__ = ("_fds", "_name", "layout")

    def __init__(self, name: str, fds: Fds) -> None:
        self._name = name
        self._fds = fds
        self.layout = b""

    @property
    def kept(self) -> bool:
        """Whether there is a region that another back end could go on with."""
        return len(self.layout) == p.INFLIGHT.size and self._fds.find(self._name, _IDENT) >= 0

    def share(self, connection: Connection, count: int, size: int) -> None:
        """Give the back end the region there is, or ask for a new one for ``count`` rings of ``size`` chains.

        Raises:
            BackendError: what it gave is no such region.
        """
        if not self.kept:
            self._ask(connection, count, size)
        fd = self._fds.find(self._name, _IDENT)
        connection.send(p.SET_INFLIGHT_FD, self.layout, [fd])

    def _ask(self, connection: Connection, count: int, size: int) -> None:
        self.drop()
        request = p.INFLIGHT.pack(0, 0, count, size)
        layout, fd = connection.ask_for_fd(p.GET_INFLIGHT_FD, request, size=p.INFLIGHT.size)
        length, offset, _, _ = p.INFLIGHT.unpack(layout)
        info = os.fstat(fd)
        if not S_ISREG(info.st_mode) or not 0 < length <= info.st_size - offset:
            os.close(fd)
            raise p.BackendError(
                f"the back end's list of requests has {length} bytes at {offset} of {info.st_size}"
            )
        self.layout = p.INFLIGHT.pack(length, offset, count, size)
        self._fds.resave(self._name, _IDENT, fd, kind="inflight", owner=FD_OWNER)

    def drop(self) -> None:
        """Forget the region: nothing is in flight."""
        fd = self._fds.take(self._name, _IDENT)
        self.layout = b""
        if fd >= 0:
            os.close(fd)
