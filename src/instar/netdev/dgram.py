"""``dgram``: one frame a datagram, over a unix or UDP socket."""

from __future__ import annotations

import _socket
import os

from instar.netdev import sockets
from instar.netdev.base import MAX_FRAME, NetBackend
from instar.sockfile import identity, remove_ours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from instar.loop import Loop, Timer
    from instar.netdev.base import Emit, FdTable
    from instar.netdev.sockets import Address
    from instar.netdev.spec import NetSpec
    from instar.netdev.state import NetdevState

_ROOM_NS: Final = 1_000_000  # how long the reader of a unix socket has to take a datagram


class DgramNet(NetBackend):
    """Datagrams to one remote address, or on a socket that knows its other end.

    While the other end has no room, the guest's frames wait in its ring. What nobody is there for is dropped.
    """

    __slots__ = ("_full", "_inode", "_remote", "_timer")
    kind: ClassVar[str] = "dgram"

    def __init__(self, spec: NetSpec, loop: Loop, emit: Emit) -> None:
        super().__init__(spec, loop, emit)
        self._inode = (0, 0)
        self._remote: Address = ""
        self._full = False
        self._timer: Timer | None = None

    @property
    def info(self) -> str:
        """What ``info network`` shows of its other end."""
        if self._remote:
            return f"remote={sockets.shown(self._remote).replace('tcp:', 'udp:')}"
        return f"fd={self.spec.text('local.str')}"

    def open(self, fds: FdTable) -> None:
        """Take over the socket, or bind one.

        Raises:
            ConfigError, HostError: it cannot be; nothing was created.
        """
        spec = self.spec
        if spec.text("remote.type"):
            _, self._remote = sockets.addresses(spec, "remote")[0]
        self._fd = fds.take(self.name, 0)
        if self._fd < 0:
            self._make_nothing()
        if self._fd < 0 and spec.text("local.type") == "fd":
            self._fd = sockets.given_socket(spec, spec.text("local.str"), fds)
        elif self._fd < 0:
            self._fd = sockets.bind(spec, "local")
            self._inode = identity(spec.text("local.path"))
        self._rewatch()

    def send(self, header: bytes, frame: bytes) -> bool:
        """Send a datagram; False while there is no room for it."""
        del header  # datagrams have none
        try:
            if self._remote:
                self._send_to(frame)
            else:
                os.write(self._fd, frame)
        except BlockingIOError:
            self._wait_for_room()
            return False
        except OSError:  # nobody there, too long for one datagram
            self.dropped += 1
        return True

    def save_state(self) -> NetdevState:
        """Return what must cross beside the descriptor."""
        state = super().save_state()
        state.path_device, state.path_inode = self._inode
        return state

    def load_state(self, state: NetdevState) -> None:
        """Go on with the socket."""
        self._inode = (state.path_device, state.path_inode)
        super().load_state(state)

    def close(self) -> None:
        """Close, and remove the socket file if it is ours."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().close()
        remove_ours(self.spec.text("local.path"), self._inode)

    def _wait_for_room(self) -> None:
        """Hear of room: from the kernel, which does not tell it of a unix socket that others send to, too."""
        if not isinstance(self._remote, str) or not self._remote:
            self._full = True
            self._rewatch()
        elif self._timer is None:
            self._timer = self._loop.call_later(_ROOM_NS, self._look_for_room)

    def _look_for_room(self) -> None:
        self._timer = None
        super()._writable()

    def _writable(self) -> None:
        self._full = False
        super()._writable()

    def _wait_writable(self) -> bool:
        return self._full

    def _send_to(self, frame: bytes) -> None:
        sock = _socket.socket(fileno=self._fd)
        try:
            sock.sendto(frame, self._remote)
        finally:
            sock.detach()

    def _receive(self, limit: int) -> None:
        for _ in range(limit):
            try:
                frame = os.read(self._fd, MAX_FRAME)
            except BlockingIOError:
                return
            except OSError:  # an earlier datagram was refused (ICMP): told here, once
                continue
            if frame:
                self._waiting.append(frame)
