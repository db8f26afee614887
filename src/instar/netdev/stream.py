"""``stream``: frames over a stream socket, each after its length (32 bits, big-endian), as QEMU and passt do it."""

from __future__ import annotations

import os

from instar.netdev import sockets
from instar.netdev.base import LENGTH, NetBackend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from instar.loop import Loop
    from instar.netdev.base import Emit, FdTable
    from instar.netdev.spec import NetSpec
    from instar.netdev.state import NetdevState

_READ: Final = 1 << 16  # bytes at once
_CONNECTION, _LISTENER = 0, 1  # ids of the descriptors
_RETRY_NS: Final = 1_000_000_000


class StreamNet(NetBackend):
    """One connection at a time; a server waits for the next when it ends."""

    __slots__ = ("_inode", "_listener")
    kind: ClassVar[str] = "stream"

    def __init__(self, spec: NetSpec, loop: Loop, emit: Emit) -> None:
        super().__init__(spec, loop, emit)
        self.connected = False
        self._listener = -1
        self._inode = (0, 0)

    @property
    def info(self) -> str:
        """What ``info network`` shows of its other end."""
        spec = self.spec
        where = spec.text("addr.path") or f"{spec.text('addr.host')}:{spec.text('addr.port')}"
        if spec.text("addr.type") == "fd":
            where = spec.text("addr.str")
        verb = "connected" if self.connected else "disconnected"
        verb = "listening" if self._listener >= 0 and not self.connected else verb
        return f"{verb},{spec.text('addr.type')}:{where}"

    def open(self, fds: FdTable) -> None:
        """Take over connection and listener, or connect or listen.

        Raises:
            ConfigError, HostError: it cannot be; nothing was created.
        """
        spec = self.spec
        self._listener = fds.take(self.name, _LISTENER)
        fd = fds.take(self.name, _CONNECTION)
        if self._listener < 0 and fd < 0:
            if spec.text("addr.type") == "fd":
                fd = sockets.given_socket(spec, spec.text("addr.str"), fds)
            elif spec.on("server", default=False):
                self._listener = sockets.bind(spec, "addr")
                self._inode = sockets.inode(spec.text("addr.path"))
            else:
                fd = sockets.connect(spec)
        self._fd = fd
        self.connected = fd >= 0
        self._rewatch()
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
        """Hang up, and remove the socket file if it is ours."""
        super().close()
        if self._listener >= 0:
            self._loop.unwatch(self._listener)
            os.close(self._listener)
            sockets.remove_ours(self.spec.text("addr.path"), self._inode)
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
        self._fd = fd
        self.connected = True
        kind = self.spec.text("addr.type")
        where = {"type": kind} | (
            {"path": self.spec.text("addr.path")}
            if kind == "unix"
            else {"host": self.spec.text("addr.host"), "port": self.spec.text("addr.port")}
        )
        self._emit("NETDEV_STREAM_CONNECTED", {"netdev-id": self.id, "addr": where})
        self._rewatch()
        self._watch_listener()

    def _watch_listener(self) -> None:
        """Accept while nobody is connected; who comes meanwhile waits."""
        if self._listener >= 0:
            self._loop.watch(self._listener, readable=None if self.connected else self._accept)
