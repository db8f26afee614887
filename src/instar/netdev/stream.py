"""``stream``: frames over a stream socket, each after its length (32 bits, big-endian), as QEMU and passt do it."""

from __future__ import annotations

import errno
import os

from instar.errors import HostError
from instar.netdev import sockets
from instar.netdev.base import LENGTH, NetBackend
from instar.sockfile import identity, remove_ours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from instar.loop import Loop, Timer
    from instar.netdev.base import Emit, FdTable
    from instar.netdev.spec import NetSpec
    from instar.netdev.state import NetdevState

_READ: Final = 1 << 16  # bytes at once
_CONNECTION, _LISTENER = 0, 1  # ids of the descriptors
_RETRY_NS: Final = 1_000_000_000


class StreamNet(NetBackend):
    """One connection at a time; when it ends, a server waits for the next, and a client may try again.

    An attempt to connect does not cross an update: the new program begins another at once.
    """

    __slots__ = ("_connecting", "_inode", "_listener", "_reconnect_ns", "_timer", "_tries")
    kind: ClassVar[str] = "stream"

    def __init__(self, spec: NetSpec, loop: Loop, emit: Emit) -> None:
        super().__init__(spec, loop, emit)
        self.connected = False
        self._listener = -1
        self._inode = (0, 0)
        self._reconnect_ns = int(spec.text("reconnect-ms") or 0) * 1_000_000
        self._timer: Timer | None = None
        self._connecting = -1
        self._tries = 0

    @property
    def info(self) -> str:
        """What ``info network`` shows of its other end."""
        spec = self.spec
        where = spec.text("addr.path") or f"{spec.text('addr.host')}:{spec.text('addr.port')}"
        if spec.text("addr.type") == "fd":
            where = spec.text("addr.str")
        idle = "connecting" if self._reconnect_ns else "disconnected"
        idle = "listening" if self._listener >= 0 else idle
        verb = "connected" if self.connected else idle
        return f"{verb},{spec.text('addr.type')}:{where}"

    def open(self, fds: FdTable) -> None:
        """Take over connection and listener, or connect or listen.

        A client that the program before had without a connection stays so, unless it is to try again.

        Raises:
            ConfigError, HostError: it cannot be; nothing was created.
        """
        spec = self.spec
        self._listener = fds.take(self.name, _LISTENER)
        fd = fds.take(self.name, _CONNECTION)
        if fd >= 0:
            self._fd = fd
            self.connected = True
            self._rewatch()
        elif spec.on("server", default=False):
            self._listen()
        elif self._reconnect_ns:
            self._timer = self._loop.call_later(0, self._try_now)
        elif not self.resumed and spec.text("addr.type") == "fd":
            self._make_nothing()
            self._connected(sockets.given_socket(spec, spec.text("addr.str"), fds))
        elif not self.resumed:
            self._make_nothing()
            self._connected(sockets.connect(spec, self.patience_s))
        self._watch_listener()

    def send(self, header: bytes, frame: bytes) -> bool:
        """Send a frame behind its length; what the other end does not take now is sent later."""
        del header  # streams have none
        if not self.connected:
            return True  # nobody is there, as without a cable
        if self._unsent:
            return False
        data = LENGTH.pack(len(frame)) + frame
        sent = self._write(data)
        if sent < len(data):
            self._unsent += data[sent:]
            self._rewatch()
        return True

    def save_fds(self, fds: FdTable) -> None:
        """Name the connection and the listener."""
        self._name(fds, _CONNECTION, self._fd)
        self._name(fds, _LISTENER, self._listener)

    def save_state(self) -> NetdevState:
        """Return what must cross beside the descriptors."""
        state = super().save_state()
        state.path_device, state.path_inode = self._inode
        return state

    def load_state(self, state: NetdevState) -> None:
        """Go on with the connection."""
        self._inode = (state.path_device, state.path_inode)
        if self.connected:  # else the rest belongs to nobody
            super().load_state(state)

    def close(self) -> None:
        """Hang up, try no more, and remove the socket file if it is ours."""
        self._stop_trying()
        super().close()
        if self._listener >= 0:
            self._loop.unwatch(self._listener)
            os.close(self._listener)
            remove_ours(self.spec.text("addr.path"), self._inode)
        self._listener = -1

    def _receive(self, limit: int) -> None:
        del limit  # what one read brings is little, and what the guest does not take waits
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return
        except OSError:  # reset by the other end
            data = b""
        if not data:
            self._hang_up()
            return
        self._input += data
        self._split()

    def _writable(self) -> None:
        del self._unsent[: self._write(self._unsent)]
        if not self._unsent:
            super()._writable()

    def _write(self, data: bytes | bytearray) -> int:
        """Return how many bytes went out, or are not needed any more."""
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError:
            self._hang_up()
            return len(data)

    def _hang_up(self) -> None:
        super()._hang_up()
        if not self.connected:
            return
        self.connected = False
        self._emit("NETDEV_STREAM_DISCONNECTED", {"netdev-id": self.id})
        self._watch_listener()
        self._try_later()
        if self._front is not None:
            self._front.drained()

    def _accept(self) -> None:
        try:
            fd = sockets.accept(self._listener)
        except (BlockingIOError, ConnectionError):  # it went away before we came
            return
        except OSError:  # out of descriptors: later, instead of spinning
            self._loop.unwatch(self._listener)
            self._loop.call_later(_RETRY_NS, self._watch_listener)
            return
        self._connected(fd)
        self._watch_listener()

    def _listen(self) -> None:
        if self._listener < 0:
            self._make_nothing()
            self._listener = sockets.bind(self.spec, "addr")
            self._inode = identity(self.spec.text("addr.path"))

    def _connected(self, fd: int) -> None:
        sockets.hurry(fd)
        self._fd = fd
        self.connected = True
        where = sockets.peer(self.spec, fd)
        self._emit("NETDEV_STREAM_CONNECTED", {"netdev-id": self.id, "addr": where})
        self._rewatch()

    # ------------------------------------------------------------------- a client that tries again

    def _try_now(self) -> None:
        """Begin to connect; the answer comes later."""
        self._timer = None
        self._tries += 1
        try:
            self._connecting, error = sockets.begin_to_connect(self.spec, self._tries - 1)
        except (HostError, OSError):  # the name is not known now, or no descriptor is left
            self._try_later()
            return
        if error == errno.EINPROGRESS:
            self._loop.watch(self._connecting, writable=self._on_answer)
        else:
            self._answered(error)

    def _on_answer(self) -> None:
        self._loop.unwatch(self._connecting)
        self._answered(sockets.outcome(self._connecting))

    def _answered(self, error: int) -> None:
        fd, self._connecting = self._connecting, -1
        if error:
            os.close(fd)
            self._try_later()
        else:
            self._connected(fd)

    def _try_later(self) -> None:
        if self._reconnect_ns:
            self._timer = self._loop.call_later(self._reconnect_ns, self._try_now)

    def _stop_trying(self) -> None:
        self._reconnect_ns = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._connecting >= 0:
            self._loop.unwatch(self._connecting)
            os.close(self._connecting)
            self._connecting = -1

    def _watch_listener(self) -> None:
        """Accept while nobody is connected; who comes meanwhile waits."""
        if self._listener >= 0:
            self._loop.watch(self._listener, readable=None if self.connected else self._accept)
