"""``socket``: a unix stream socket, listening or connecting; descriptors may come with the input."""

from __future__ import annotations

import _socket
import errno
import os
import sys

from instar import log
from instar.chardev.base import FD_OWNER, FdChardev
from instar.chardev.state import SocketState
from instar.errors import ConfigError, HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar, Final

    from instar.chardev.base import FdTable
    from instar.cpr.state import State
    from instar.loop import Loop

MAX_PATH: Final = 107  # bytes, sun_path without its NUL
MAX_GIFTS: Final = 16  # descriptors of a client that nobody has claimed; more are closed
_FD_LISTENER: Final = 0
_FD_CONNECTION: Final = 1
_FD_GIFT: Final = 2  # and up
_RETRY_NS: Final = 1_000_000_000
_INT_SIZE: Final = 4
# Sockets in use. A socket object that is forgotten closes its descriptor; when a new program fails half way, the
# program before it needs all of them again, so they are closed on purpose only.
_in_use: Final[set[_socket.socket]] = set()
_S_IFMT: Final = 0o170000
_S_IFSOCK: Final = 0o140000


class SocketChardev(FdChardev):
    """A unix socket: one client at a time, the others wait until it has gone.

    Args:
        ident: Unique id.
        path: Of the socket; a server removes a stale one before and its own at exit.
        loop: The main loop.
        fds: Descriptors of the program before; those of this id are used as they are.
        server: Listen; otherwise connect (once).

    Raises:
        ConfigError: The path cannot be a socket's.
        HostError: The path is in use or the host refused; nothing was created.
    """

    __slots__ = ("_gifts", "_inode", "_listener", "_server", "_sock", "_watched_listener", "path")
    state_class: ClassVar[type[State]] = SocketState

    def __init__(self, ident: str, path: str, loop: Loop, fds: FdTable, *, server: bool) -> None:
        super().__init__(ident, loop)
        if not 0 < len(os.fsencode(path)) <= MAX_PATH:
            raise ConfigError(
                f"chardev {ident}: path has {len(os.fsencode(path))} bytes, allowed 1 to {MAX_PATH}"
            )
        self.path = path
        self._server = server
        self._sock: _socket.socket | None = None
        self._listener: _socket.socket | None = None
        self._watched_listener = False
        self._inode = (0, 0)
        self._gifts: list[int] = []
        self.connected = False
        try:
            self._adopt(fds)
            if not self.adopted:
                self._create()
        except OSError as e:
            verb = "listen on" if server else "connect to"
            raise HostError(f"chardev {ident}: cannot {verb} {path}: {e.strerror}") from e

    @property
    def filename(self) -> str:
        """What ``query-chardev`` shows."""
        state = "" if self.connected else "disconnected:"
        return f"{state}unix:{self.path}{',server=on' if self._server else ''}"

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
            path_device=self._inode[0],
            path_inode=self._inode[1],
        )

    def load_state(self, state: State) -> None:
        """Go on with the connection; a client that has not all of its output yet gets the rest."""
        assert isinstance(state, SocketState)
        self._inode = (state.path_device, state.path_inode)
        if (state.connected, state.gifts) != (self.connected, len(self._gifts)):
            log.warning(
                f"chardev {self.id}: its connection did not come along; its client has to connect again"
            )
        if self.connected:
            self._restore_unsent(state.unsent)

    def close(self) -> None:
        """Hang up and remove the socket file if it is still the one we made."""
        super().close()
        self._flush_at_exit()
        self.disconnect()
        if self._listener is None:
            return
        _in_use.discard(self._listener)
        self._listener.close()
        self._listener = None
        try:
            info = os.lstat(self.path)
            if self._inode == (info.st_dev, info.st_ino):
                os.unlink(self.path)
        except FileNotFoundError:  # somebody removed it: nothing left to undo
            pass

    def _adopt(self, fds: FdTable) -> None:
        listener = fds.take(self.state_id, _FD_LISTENER)
        connection = fds.take(self.state_id, _FD_CONNECTION)
        self.adopted = listener >= 0 or connection >= 0
        if listener >= 0:
            self._listener = _socket.socket(fileno=listener)
            _in_use.add(self._listener)
            bound = self._listener.getsockname()
            if os.path.abspath(str(bound)) != os.path.abspath(self.path):
                raise ConfigError(
                    f"chardev {self.id}: path {self.path} differs from {bound}, where it listens already"
                )
        if connection >= 0:
            self._connected(_socket.socket(fileno=connection))
        for index in range(MAX_GIFTS):
            gift = fds.take(self.state_id, _FD_GIFT + index)
            if gift >= 0:
                self._gifts.append(gift)

    def _create(self) -> None:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            if self._server:
                self._listen(sock)
            else:
                sock.connect(self.path)
                self._connected(sock)
        except BaseException:
            sock.close()
            raise

    def _listen(self, sock: _socket.socket) -> None:
        _remove_stale(self.path)
        os.fchmod(sock.fileno(), 0o600)  # Linux gives the file the mode of the unbound socket
        sock.bind(self.path)
        info = os.lstat(self.path)
        self._inode = (info.st_dev, info.st_ino)
        sock.listen(8)
        sock.settimeout(0)
        self._listener = sock
        _in_use.add(sock)

    def _connected(self, sock: _socket.socket) -> None:
        _in_use.add(sock)
        sock.settimeout(0)
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
        self._connected(_socket.socket(fileno=fd))
        self._event("opened")
        self._rewatch()

    def _rewatch(self) -> None:
        super()._rewatch()
        wanted = self._listener is not None and self.frontend_open and not self.connected
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


def _remove_stale(path: str) -> None:
    """Remove a socket file that nobody listens on any more; leave everything else alone."""
    try:
        if os.lstat(path).st_mode & _S_IFMT != _S_IFSOCK:
            raise OSError(errno.EEXIST, "exists and is not a socket")
    except FileNotFoundError:
        return
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        probe.settimeout(0)
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
        return
    except BlockingIOError:  # its backlog is full: somebody listens
        pass
    finally:
        probe.close()
    raise OSError(errno.EADDRINUSE, "another program listens on it")
