"""``socket``: a stream socket (unix or TCP), listening or connecting.

Descriptors may come with the input of a unix socket. A client with ``reconnect-ms`` tries again until it is connected.
"""

from __future__ import annotations

import _socket
import errno
import os
import sys

from instar import log
from instar.chardev.base import FD_OWNER, FdChardev
from instar.chardev.state import SocketState
from instar.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar, Final

    from instar.chardev.address import InetAddress, UnixAddress
    from instar.chardev.base import FdTable
    from instar.cpr.state import State
    from instar.loop import Loop, Timer

    Address = UnixAddress | InetAddress

MAX_GIFTS: Final = 16  # descriptors of a client that nobody has claimed; more are closed
_FD_LISTENER: Final = 0
FD_CONNECTION: Final = 1
_FD_GIFT: Final = 2  # and up
_RETRY_NS: Final = 1_000_000_000
_INT_SIZE: Final = 4
# Sockets in use. A socket object that is forgotten closes its descriptor; when a new program fails half way, the
# program before it needs all of them again, so they are closed on purpose only.
_in_use: Final[set[_socket.socket]] = set()


class SocketChardev(FdChardev):
    """A stream socket: one client at a time, the others wait until it has gone.

    Args:
        ident: Unique id.
        address: Where; a server removes a stale socket file before and its own at exit.
        loop: The main loop.
        fds: Descriptors of the program before; those of this id are used as they are.
        server: Listen; otherwise connect.
        nodelay: Send small pieces at once (TCP).
        reconnect_ms: A client that is not connected tries again after so many milliseconds; 0: it connects once.
        resumed: There was a program before: a client that had lost its connection does not look for it at the start.

    Raises:
        ConfigError: The listener of the program before is elsewhere.
        HostError: The address is in use or the host refused; nothing was created.
    """

    __slots__ = (
        "_connecting", "_gifts", "_listener", "_nodelay", "_reconnect_ns", "_server", "_sock", "_timer", "_tries",
        "_watched_listener", "address",
    )  # fmt: skip
    state_class: ClassVar[type[State]] = SocketState

    def __init__(  # noqa: PLR0913 - the options of the kind
        self,
        ident: str,
        address: Address,
        loop: Loop,
        fds: FdTable,
        *,
        server: bool,
        nodelay: bool = False,
        reconnect_ms: int = 0,
        resumed: bool = False,
    ) -> None:
        super().__init__(ident, loop)
        self.address: Address = address
        self._server = server
        self._nodelay = nodelay
        self._reconnect_ns = reconnect_ms * 1_000_000
        self._sock: _socket.socket | None = None
        self._listener: _socket.socket | None = None
        self._connecting: _socket.socket | None = None
        self._timer: Timer | None = None
        self._tries = 0
        self._watched_listener = False
        self._gifts: list[int] = []
        self.connected = False
        try:
            self._adopt(fds)
            if not self.adopted:
                self._create(resumed=resumed)
        except OSError as e:
            verb = "listen on" if server else "connect to"
            raise HostError(f"chardev {ident}: cannot {verb} {address}: {e.strerror}") from e

    @property
    def filename(self) -> str:
        """What ``query-chardev`` shows."""
        state = "" if self.connected else "disconnected:"
        return f"{state}{self.address.label}{',server=on' if self._server else ''}"

    @property
    def broken(self) -> bool:
        """Whether the client has gone, although its input may not be at its end."""
        return self.connected and self._out_fd < 0

    def wait_for_client(self) -> None:
        """Block until somebody has connected (``wait=on``); before the guest starts only."""
        if self._listener is not None and not self.connected:
            self._listener.settimeout(None)
            try:
                self._accept()
            finally:
                self._listener.settimeout(0)

    def disconnect(self) -> None:
        """Hang up; a server accepts the next client."""
        super().disconnect()
        if self._sock is None:
            return
        self._in_fd = self._out_fd = -1
        self._rewatch()  # before the descriptor is closed: the next client may get its number
        _in_use.discard(self._sock)
        self._sock.close()
        self._sock = None
        self._drop_gifts()
        self.connected = self.adopted = False
        self._event("closed")
        self._rewatch()
        self._try_later()

    def take_gift(self) -> int:
        """Return the oldest descriptor that came with the input (the caller owns it), or -1."""
        return self._gifts.pop(0) if self._gifts else -1

    def save_fds(self, fds: FdTable) -> None:
        """Name listener, connection and unclaimed descriptors; forget those that are gone."""
        listener = self._listener.fileno() if self._listener is not None else -1
        connection = self._sock.fileno() if self._sock is not None else -1
        for index in range(_FD_GIFT + MAX_GIFTS):  # all at first: a descriptor has one name only
            fds.delete(self.state_id, index)
        for index, fd in enumerate([listener, connection, *self._gifts]):
            if fd >= 0:
                fds.resave(self.state_id, index, fd, owner=FD_OWNER)

    def save_state(self) -> SocketState:
        """Return what must cross beside the descriptors."""
        return SocketState(
            unsent=bytes(self._out),
            connected=self.connected,
            gifts=len(self._gifts),
            path_device=self.address.inode[0],
            path_inode=self.address.inode[1],
            cols=self._size[0],
            rows=self._size[1],
        )

    def load_state(self, state: State) -> None:
        """Go on with the connection; a client that has not all of its output yet gets the rest."""
        assert isinstance(state, SocketState)
        self.address.inode = (state.path_device, state.path_inode)
        self._restore_size(state.cols, state.rows)
        if (state.connected, state.gifts) != (self.connected, len(self._gifts)):
            log.warning(
                f"chardev {self.id}: its connection did not come along; its client has to connect again"
            )
        if self.connected:
            self._restore_unsent(state.unsent)

    def close(self) -> None:
        """Hang up, try no more, and remove the socket file if it is still the one we made."""
        super().close()
        self._reconnect_ns = 0
        self._stop_connecting()
        self._flush_at_exit()
        self.disconnect()
        if self._listener is None:
            return
        _in_use.discard(self._listener)
        self._listener.close()
        self._listener = None
        self.address.remove()

    def _adopt(self, fds: FdTable) -> None:
        listener = fds.take(self.state_id, _FD_LISTENER)
        connection = fds.take(self.state_id, FD_CONNECTION)
        self.adopted = listener >= 0 or connection >= 0
        if listener >= 0:
            self._listener = _socket.socket(fileno=listener)
            _in_use.add(self._listener)
            self.address.adopt_listener(self._listener)
        if connection >= 0:
            self._connected(_socket.socket(fileno=connection))
        for index in range(MAX_GIFTS):
            gift = fds.take(self.state_id, _FD_GIFT + index)
            if gift >= 0:
                self._gifts.append(gift)

    def _create(self, *, resumed: bool) -> None:
        if self._server:
            self._listener = self.address.listen()
            self._listener.settimeout(0)
            _in_use.add(self._listener)
        elif self._reconnect_ns:
            self._timer = self._loop.call_later(0, self._try_now)
        elif not resumed:
            self._connect_once()

    def _connect_once(self) -> None:
        """Connect, waiting for the answer; before the guest starts only."""
        *others, last = self.address.targets()
        for family, where in others:
            try:
                return self._connect_to(family, where)
            except OSError:  # the next address of the host may answer
                continue
        return self._connect_to(*last)

    def _connect_to(self, family: int, where: str | tuple[str, int]) -> None:
        sock = _socket.socket(family, _socket.SOCK_STREAM)
        try:
            sock.connect(where)
        except BaseException:
            sock.close()
            raise
        self._begin(sock)

    def _try_now(self) -> None:
        """Begin to connect; the addresses of a host take turns."""
        self._timer = None
        try:
            targets = self.address.targets()
            family, where = targets[self._tries % len(targets)]
            sock = _socket.socket(family, _socket.SOCK_STREAM)
        except OSError:  # name not known now, or out of descriptors
            self._try_later()
            return
        self._tries += 1
        sock.settimeout(0)
        self._connecting = sock
        error = sock.connect_ex(where)
        if error == errno.EINPROGRESS:
            self._loop.watch(sock.fileno(), writable=self._on_answer)
        else:
            self._answered(error)

    def _on_answer(self) -> None:
        assert self._connecting is not None
        self._loop.unwatch(self._connecting.fileno())
        self._answered(self._connecting.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR))

    def _answered(self, error: int) -> None:
        sock, self._connecting = self._connecting, None
        assert sock is not None
        if error:
            sock.close()
            self._try_later()
            return
        self._begin(sock)

    def _try_later(self) -> None:
        if self._reconnect_ns and self._timer is None and not self._server:
            self._timer = self._loop.call_later(self._reconnect_ns, self._try_now)

    def _stop_connecting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._connecting is not None:
            self._loop.unwatch(self._connecting.fileno())
            self._connecting.close()
            self._connecting = None

    def _connected(self, sock: _socket.socket) -> None:
        _in_use.add(sock)
        sock.settimeout(0)
        if sock.family != _socket.AF_UNIX and self._nodelay and not self.adopted:
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        if not self._server:
            self.address.remember(sock)
        self._sock = sock
        self._in_fd = self._out_fd = sock.fileno()
        self.connected = True

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            fd = _accept(self._listener)
        except (BlockingIOError, ConnectionError):  # it went away before we came
            return
        except OSError:  # out of descriptors or memory: try again later instead of spinning
            self._loop.watch(self._listener.fileno())
            self._loop.call_later(_RETRY_NS, self._watch_again)
            return
        self._begin(_socket.socket(fileno=fd))

    def _begin(self, sock: _socket.socket) -> None:
        """Serve a new connection."""
        self._connected(sock)
        self._event("opened")
        self._rewatch()

    def _is_free(self) -> bool:
        """Whether the next client may come."""
        return self._listener is not None and self.frontend_open and not self.connected

    def _rewatch(self) -> None:
        super()._rewatch()
        wanted = self._is_free()
        if wanted == self._watched_listener or self._listener is None:
            return
        self._watched_listener = wanted
        self._loop.watch(self._listener.fileno(), readable=self._accept if wanted else None)

    def _watch_again(self) -> None:
        self._watched_listener = False
        self._rewatch()

    def _read(self, size: int) -> bytes:
        assert self._sock is not None
        room = _socket.CMSG_SPACE(MAX_GIFTS * _INT_SIZE)
        data, extras, _, _ = self._sock.recvmsg(size, room, _socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in extras:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                self._drop_gifts()  # nobody claimed the earlier ones
                whole = len(payload) - len(payload) % _INT_SIZE
                self._gifts += [
                    int.from_bytes(payload[n : n + _INT_SIZE], sys.byteorder)
                    for n in range(0, whole, _INT_SIZE)
                ]
        return data

    def _send(self, data: bytes | bytearray) -> int:
        assert self._sock is not None
        return self._sock.send(data)

    def _end_of_input(self) -> None:
        self.disconnect()

    def _drop_gifts(self) -> None:
        for fd in self._gifts:
            os.close(fd)
        self._gifts = []


def _accept(listener: _socket.socket) -> int:
    """Return the descriptor of the next connection (what ``socket.accept`` is made of)."""
    accept: Callable[[], tuple[int, object]] = getattr(listener, "_accept")  # noqa: B009 - not in the stubs
    return accept()[0]
