"""What a back end asks of us, over a connection of its own (BACKEND_REQ).

Source: QEMU docs/interop/vhost-user, "Back-end message types".
"""

from __future__ import annotations

import _socket

from instar.vhostuser import protocol as p
from instar.vhostuser.connection import in_use, keep_fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_ROOM: Final = 4096  # bytes read in one turn: a back end that never stops has its turn like others
_UNKNOWN: Final = 1  # the answer to what we do not do


class BackendRequests:
    """Our end of the connection.

    Args:
        sock: Owned from now on.

    Attributes:
        heard: What came of a message that is not whole.
    """

    __slots__ = ("_sock", "heard")

    def __init__(self, sock: _socket.socket) -> None:
        sock.settimeout(0)
        in_use.add(sock)
        self._sock = sock
        self.heard = b""

    @classmethod
    def make(cls) -> tuple[BackendRequests, int]:
        """Return our end and the descriptor of the back end's, which the caller owns."""
        mine, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        return cls(mine), theirs.detach()

    @classmethod
    def adopt(cls, fd: int) -> BackendRequests:
        """Go on with the connection of the program before."""
        return cls(_socket.socket(fileno=fd))

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._sock.fileno()

    def close(self) -> None:
        """Hear no more."""
        in_use.discard(self._sock)
        self._sock.close()

    def read(self) -> bool:
        """Read what came; return whether the configuration space changed.

        Raises:
            LostError: the back end closed this connection.
            BackendError: it is not a message.
        """
        try:
            space = _socket.CMSG_SPACE(4 * p.MAX_FDS)
            data, extras, _, _ = self._sock.recvmsg(_ROOM, space, _socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return False
        except OSError as e:
            raise p.LostError(f"the back end's requests: {e.strerror}") from e
        if keep_fds(extras, None):
            raise p.BackendError("the back end sent descriptors that nobody had asked for")
        if not data:
            raise p.LostError("the back end asks nothing any more")
        self.heard += data
        changed = False
        while (request := self._next()) is not None:
            known = request[0] == p.BACKEND_CONFIG_CHANGE
            changed |= known
            if request[1] & p.NEED_REPLY:
                self._answer(request[0], 0 if known else _UNKNOWN)
        return changed

    def _next(self) -> tuple[int, int] | None:
        """Take the next whole message; return its number and flags."""
        if len(self.heard) < p.HEADER.size:
            return None
        number, flags, size = p.HEADER.unpack_from(self.heard)
        if flags & (p.VERSION_MASK | p.REPLY) != p.VERSION or size > p.MAX_PAYLOAD:
            raise p.BackendError(
                f"the back end asked with message {number}, flags {flags:#x}, {size} bytes"
            )
        end = p.HEADER.size + size
        if len(self.heard) < end:
            return None
        self.heard = self.heard[end:]
        return number, flags

    def _answer(self, number: int, status: int) -> None:
        flags = p.VERSION | p.REPLY
        reply = p.HEADER.pack(number, flags, p.U64.size) + p.U64.pack(status)
        try:
            sent = self._sock.send(reply)
        except OSError as e:
            raise p.BackendError(f"the answer to a request of the back end: {e.strerror}") from e
        if sent < len(reply):
            raise p.BackendError("the back end does not read the answers to its requests")
