"""The connections to a back end: opened, negotiated, named so that updates keep them, and closed.

Source: QEMU docs/interop/vhost-user.
"""

from __future__ import annotations

import os

from instar.vhostuser import protocol as p
from instar.vhostuser import ram as memory
from instar.vhostuser.connection import Connection
from instar.vhostuser.requests import BackendRequests
from instar.vhostuser.ring import BYTES
from instar.virtio.features import VERSION_1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from instar.cpr.fds import Fds
    from instar.loop import Loop
    from instar.memory.address_space import RamRegion

_CONNECTION, _REQUESTS = 0, 3  # ids of named descriptors


class Link:
    """What there is between us and a back end.

    Args:
        name: Of its descriptors.
        path: Where the back end listens.
        count: Rings.
        ram: Guest RAM with its guest addresses.
        loop: The main loop.
        fds: Named descriptors.
        on_readable: The back end said something, or hung up; called in the main loop.
        on_request: The back end asks something; called in the main loop.

    Attributes:
        connection: To the back end, if there is one.
        requests: Its requests, if it has any.
        features: What the back end offers, or the last one did.
        protocol: Protocol features agreed on.
    """

    __slots__ = (
        "_count", "_fds", "_loop", "_name", "_on_readable", "_on_request", "_ram", "connection", "features", "path",
        "protocol", "requests",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - handles, named
        self,
        name: str,
        path: str,
        count: int,
        *,
        ram: Sequence[RamRegion],
        loop: Loop,
        fds: Fds,
        on_readable: Callable[[], object],
        on_request: Callable[[], object],
    ) -> None:
        self._name = name
        self.path = path
        self._count = count
        self._ram = ram
        self._loop = loop
        self._fds = fds
        self._on_readable = on_readable
        self._on_request = on_request
        self.features = self.protocol = 0
        self.connection: Connection | None = None
        self.requests: BackendRequests | None = None

    def connect(self, patience_s: float) -> None:
        """Find a back end, waiting at most so long for it to listen, and agree with it.

        Raises:
            ConfigError, HostError: the path cannot be one, nobody listens.
            BackendError: it does not speak the protocol. Nothing is left behind.
        """
        connection = Connection.open(self.path, patience_s)
        try:
            self._negotiate(connection)
        except BaseException:
            connection.close()
            self.close_requests()
            raise
        self._take(connection)
        self._keep(_CONNECTION, connection.fileno())

    def adopt(self) -> None:
        """Go on with the connections of the program before, if it had any."""
        connection = self._fds.find(self._name, _CONNECTION)
        requests = self._fds.find(self._name, _REQUESTS)
        if requests >= 0:
            self._take_requests(BackendRequests.adopt(requests))
        if connection >= 0:
            self._take(Connection.adopt(connection))

    def drop(self) -> None:
        """Hang up."""
        connection, self.connection = self.connection, None
        self.close_requests()
        if connection is not None:
            self._fds.delete(self._name, _CONNECTION)
            self._close_later(connection)

    def close_requests(self) -> None:
        """Hear no more requests."""
        requests, self.requests = self.requests, None
        if requests is not None:
            self._fds.delete(self._name, _REQUESTS)
            self._close_later(requests)

    def close(self) -> None:
        """Hang up at the program's end."""
        for each in (self.connection, self.requests):
            if each is not None:
                self._loop.unwatch(each.fileno())
                each.close()
        self.connection = self.requests = None

    def _close_later(self, one: Connection | BackendRequests) -> None:
        """Close it in the main loop, which watches it."""

        def close() -> None:
            self._loop.unwatch(one.fileno())
            one.close()

        self._loop.call_threadsafe(close)

    def _keep(self, ident: int, fd: int) -> None:
        self._fds.resave(self._name, ident, fd, kind="socket", owner=memory.FD_OWNER)

    def _take(self, connection: Connection) -> None:
        self.connection = connection
        fd = connection.fileno()

        def watch() -> None:
            if self.connection is connection:
                self._loop.watch(fd, readable=self._on_readable)

        self._loop.call_threadsafe(watch)

    def _take_requests(self, requests: BackendRequests) -> None:
        self.requests = requests
        fd = requests.fileno()

        def watch() -> None:
            if self.requests is requests:
                self._loop.watch(fd, readable=self._on_request)

        self._loop.call_threadsafe(watch)

    def _negotiate(self, connection: Connection) -> None:
        connection.send(p.SET_OWNER)
        features = connection.ask_u64(p.GET_FEATURES)
        for bit, name in ((p.F_PROTOCOL_FEATURES, "protocol features"), (VERSION_1, "virtio 1")):
            if not features & bit:
                raise p.BackendError(f"{self.path}: the back end does not offer {name}")
        protocol = connection.ask_u64(p.GET_PROTOCOL_FEATURES) & p.SPOKEN
        connection.send(p.SET_PROTOCOL_FEATURES, p.U64.pack(protocol))
        connection.acknowledges = bool(protocol & p.P_REPLY_ACK)
        if protocol & p.P_MQ:
            queues = connection.ask_u64(p.GET_QUEUE_NUM)
            if queues < self._count:
                raise p.BackendError(
                    f"{self.path}: the back end has {queues} queues, {self._count} are needed"
                )
        if protocol & p.P_BACKEND_REQ:
            self._offer_requests(connection)
        rings = self._fds.find(self._name, memory.RINGS)
        connection.send(p.SET_MEM_TABLE, *memory.table(self._ram, rings, self._count * BYTES))
        self.features, self.protocol = features, protocol

    def _offer_requests(self, connection: Connection) -> None:
        mine, theirs = BackendRequests.make()
        try:
            connection.send(p.SET_BACKEND_REQ_FD, b"", [theirs])
        except BaseException:
            mine.close()
            raise
        finally:
            os.close(theirs)
        self._take_requests(mine)
        self._keep(_REQUESTS, mine.fileno())
