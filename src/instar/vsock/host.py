"""Unix sockets for a guest's socket device, as Firecracker documents them.

A program of the host connects to ``PATH``, sends ``CONNECT <port>`` and a newline, and gets ``OK <host's port>`` and a
newline once a program of the guest that listens on that port has accepted; otherwise the connection is closed. A
program of the guest that connects to port P of the host (address 2) reaches whoever listens on ``PATH_P``.

Source: own; the form is Firecracker's (docs/vsock.md).
"""

from __future__ import annotations

import _socket
import errno
import os

from instar import log
from instar.errors import ConfigError, HostError
from instar.sockfile import identity, remove_ours, remove_stale
from instar.vsock.state import MAX_CLIENTS, MAX_LINE, VsockClientState, VsockHostState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar, Final, Protocol

    from instar.cpr.fds import Fds
    from instar.cpr.state import State
    from instar.loop import Loop

    class Front(Protocol):
        """The device as the host's side sees it: called in the main thread, lock held, while the machine runs."""

        def pump(self) -> None:
            """Move what can be moved."""
            ...

        def host_ready(self, ident: int, /) -> None:
            """Go on with a stream."""
            ...

        def host_connects(self, ident: int, port: int, /) -> bool:
            """Offer a new stream to ``port`` of the guest; False: it cannot be taken."""
            ...

    class Runner(Protocol):
        """What is needed of :class:`instar.machine.Machine`."""

        @property
        def loop(self) -> Loop:
            """The main loop."""
            ...

        def when_running(self, callback: Callable[[], object], /) -> None:
            """Call with the machine lock held, now or once the machine runs; in the main thread."""
            ...


_LISTENER: Final = 0  # number among the descriptors; streams have 1 and up
_OWNER: Final = "vsock"
_LAST_IDENT: Final = (1 << 31) - 1
_RETRY_NS: Final = 1_000_000_000


class UnixVsock:
    """The listener at ``path``, and streams by number; descriptors cross an update by name.

    Args:
        name: Of the device; unique.
        path: Of the socket that programs of the host connect to; a stale one is removed.
        machine: Its loop and lock.
        fds: Descriptors of the program before; those of this name are used as they are.
        inert: In a rehearsal: make nothing.

    Raises:
        ConfigError: the path differs from the one of the program before; or a listener is missing in a rehearsal.
        HostError: the path is in use or the host refused; nothing was created.
    """

    __slots__ = (
        "_asked", "_clients", "_fds", "_front", "_inode", "_listener", "_loop", "_machine", "_next",
        "_streams", "_wanted", "path", "state_id",
    )  # fmt: skip
    state_class: ClassVar[type[State]] = VsockHostState

    def __init__(
        self, name: str, path: str, machine: Runner, fds: Fds, *, inert: bool = False
    ) -> None:
        self.state_id = f"vsock/{name}"
        self.path = path
        self._machine = machine
        self._loop = machine.loop
        self._fds = fds
        self._front: Front | None = None
        self._asked = False  # for a turn of pump()
        self._streams: dict[int, int] = {}  # number to descriptor
        self._clients: dict[
            int, bytes
        ] = {}  # those among them that the guest does not know: their line
        self._wanted: dict[int, tuple[bool, bool]] = {}
        self._inode = (0, 0)
        self._listener = fds.find(self.state_id, _LISTENER)
        for entry in fds.walk(_OWNER):
            if entry.name == self.state_id and entry.ident != _LISTENER:
                self._streams[entry.ident] = entry.fd
        self._next = max(self._streams, default=0)
        if self._listener < 0 and inert:
            raise ConfigError(
                f"vsock {name}: the program before has no listener, so it would be made anew"
            )
        if self._listener < 0:
            self._listen()
        elif _bound_path(self._listener) != os.path.abspath(path):
            raise ConfigError(
                f"vsock {name}: uds-path {path} differs from {_bound_path(self._listener)}, where it listens already"
            )
        self._watch_listener()

    # ------------------------------------------------------------------- life

    def attach(self, front: Front) -> None:
        """Become the host's side of ``front``."""
        self._front = front

    def close(self, idents: list[int] | None = None) -> None:
        """Close these streams in the main loop; None: everything, now, and remove the socket file."""
        if idents is not None:
            if idents:
                self._loop.call_threadsafe(lambda: self._close_streams(idents))
            return
        self._close_streams(list(self._streams))
        self._loop.unwatch(self._listener)
        os.close(self._listener)
        remove_ours(self.path, self._inode)

    def save_state(self) -> VsockHostState:
        """Return what must cross beside the descriptors."""
        clients = [VsockClientState(ident=n, line=line) for n, line in self._clients.items()]
        device, inode = self._inode
        return VsockHostState(path_device=device, path_inode=inode, clients=clients)

    def load_state(self, state: VsockHostState) -> None:
        """Go on with who has connected."""
        self._inode = state.path_device, state.path_inode
        for client in state.clients:
            if client.ident in self._streams:
                self._clients[client.ident] = client.line
                self._go_on(client.ident)

    # ------------------------------------------------------------------- the device's side

    def later(self) -> None:
        """Ask for a turn of the device's ``pump``; from any thread, machine lock held."""
        if not self._asked:
            self._asked = True
            self._loop.call_threadsafe(lambda: self._machine.when_running(self._pump))

    def idents(self) -> list[int]:
        """Return the streams that a device may have."""
        return [n for n in self._streams if n not in self._clients]

    def connect(self, port: int) -> int:
        """Connect to who listens on ``PATH_port``; -1: nobody does."""
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            sock.settimeout(0)
            sock.connect(f"{self.path}_{port}")
        except OSError as e:
            if e.errno not in {errno.ENOENT, errno.ECONNREFUSED}:
                log.guest(self.state_id, f"connect to port {port}: {e.strerror}")
            sock.close()
            return -1
        return self._add(sock.detach())

    def accepted(self, ident: int, port: int) -> None:
        """Tell the peer, which waits for it: the socket's buffer is empty, so it takes the line whole."""
        self.send(ident, [memoryview(b"OK %d\n" % port)])

    def send(self, ident: int, data: list[memoryview]) -> int:
        """Send what the peer takes now; -1: it takes none any more."""
        fd = self._streams.get(ident, -1)
        try:
            return os.writev(fd, data)
        except BlockingIOError:
            return 0
        except OSError:  # it has gone, however it went
            return -1

    def receive(self, ident: int, room: list[memoryview]) -> int:
        """Receive into ``room``; 0: the end, -1: nothing now."""
        try:
            return os.readv(self._streams.get(ident, -1), room)
        except BlockingIOError:
            return -1
        except OSError:  # reset: nothing more comes
            return 0

    def shut_down(self, ident: int) -> None:
        """Tell the peer that nothing more comes."""
        sock = _socket.socket(fileno=self._streams[ident])
        try:
            sock.shutdown(_socket.SHUT_WR)
        except OSError:  # it has gone already
            pass
        finally:
            sock.detach()

    def want(self, ident: int, *, readable: bool, writable: bool) -> None:
        """Call the device's ``host_ready`` once, as soon as the stream is."""
        wanted = readable, writable
        if self._wanted.get(ident, (False, False)) == wanted or ident not in self._streams:
            return
        self._wanted[ident] = wanted

        def ready() -> None:
            self._ready(ident)

        self._loop.watch(
            self._streams[ident],
            readable=ready if readable else None,
            writable=ready if writable else None,
        )

    def _ready(self, ident: int) -> None:
        self._unwatch(ident)
        front = self._front
        if front is not None:
            self._machine.when_running(lambda: front.host_ready(ident))

    def _pump(self) -> None:
        self._asked = False
        if self._front is not None:
            self._front.pump()

    # ------------------------------------------------------------------- clients

    def _watch_listener(self) -> None:
        wanted = len(self._clients) < MAX_CLIENTS
        self._loop.watch(self._listener, readable=self._accept if wanted else None)

    def _accept(self) -> None:
        listener = _socket.socket(fileno=self._listener)
        try:
            accept: Callable[[], tuple[int, object]] = getattr(listener, "_accept")  # noqa: B009 - not in the stubs
            fd, _ = accept()
        except (BlockingIOError, ConnectionError):  # it went away before we came
            return
        except OSError:  # out of descriptors or memory: try again later instead of spinning
            self._loop.unwatch(self._listener)
            self._loop.call_later(_RETRY_NS, self._watch_listener)
            return
        finally:
            listener.detach()
        os.set_blocking(fd, False)
        ident = self._add(fd)
        self._clients[ident] = b""
        self._go_on(ident)
        self._watch_listener()

    def _go_on(self, ident: int) -> None:
        """Wait for the rest of a client's line, or offer it to the guest."""
        line = self._clients[ident]
        if not line.endswith(b"\n"):
            self._loop.watch(self._streams[ident], readable=lambda: self._read_line(ident))
            return
        self._loop.unwatch(self._streams[ident])
        self._machine.when_running(lambda: self._offer(ident))

    def _read_line(self, ident: int) -> None:
        """Take what is there of the line and nothing of what follows it: that is the guest's."""
        line = self._clients[ident]
        sock = _socket.socket(fileno=self._streams[ident])
        try:
            seen = sock.recv(MAX_LINE - len(line), _socket.MSG_PEEK)
            taken = sock.recv(seen.find(b"\n") + 1 or len(seen))
        except BlockingIOError:
            return
        except OSError:
            taken = b""
        finally:
            sock.detach()
        line += taken
        self._clients[ident] = line
        if not taken or (not line.endswith(b"\n") and len(line) >= MAX_LINE):
            self._close_streams([ident])
        else:
            self._go_on(ident)

    def _offer(self, ident: int) -> None:
        line = self._clients.pop(ident, None)
        if line is None or self._front is None:
            return
        self._watch_listener()
        port = _port_of(line)
        if port < 0 or not self._front.host_connects(ident, port):
            self._close_streams([ident])

    # ------------------------------------------------------------------- descriptors

    def _add(self, fd: int) -> int:
        while True:
            self._next = self._next % _LAST_IDENT + 1
            if self._next not in self._streams:
                break
        self._fds.save(self.state_id, self._next, fd, kind="socket", owner=_OWNER)
        self._streams[self._next] = fd
        return self._next

    def _unwatch(self, ident: int) -> None:
        self._wanted.pop(ident, None)
        self._loop.unwatch(self._streams[ident])

    def _close_streams(self, idents: list[int]) -> None:
        for ident in idents:
            if ident in self._streams:
                self._unwatch(ident)
                self._fds.delete(self.state_id, ident)
                os.close(self._streams.pop(ident))
                self._clients.pop(ident, None)
        self._watch_listener()

    def _listen(self) -> None:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            remove_stale(self.path)
            os.fchmod(sock.fileno(), 0o600)  # Linux gives the file the mode of the unbound socket
            sock.bind(self.path)
            sock.listen(8)
            sock.settimeout(0)
        except OSError as e:
            sock.close()
            raise HostError(f"vsock: cannot listen on {self.path}: {e.strerror}") from e
        self._inode = identity(self.path)
        self._listener = sock.detach()
        self._fds.save(self.state_id, _LISTENER, self._listener, kind="socket", owner=_OWNER)


def _port_of(line: bytes) -> int:
    """Return the port of a CONNECT line, -1 if it is none."""
    words = line.split()
    if len(words) != 2 or words[0] != b"CONNECT" or not words[1].isdigit():
        return -1
    port = int(words[1])
    return port if port < 1 << 32 else -1


def _bound_path(fd: int) -> str:
    sock = _socket.socket(fileno=fd)
    try:
        return os.path.abspath(str(sock.getsockname()))
    finally:
        sock.detach()
