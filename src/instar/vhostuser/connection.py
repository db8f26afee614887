"""One connection to a back end: requests and their replies, checked."""

from __future__ import annotations

import _socket
import os
import sys
from time import monotonic_ns, sleep

from instar.errors import ConfigError, HostError
from instar.vhostuser import protocol as p

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

PATIENCE_S: Final = 5.0  # a back end that answers later than that is given up
MAX_PATH: Final = 107  # bytes, sun_path without its NUL
_FD_BYTES: Final = 4
_RETRY_S: Final = 0.02
# A socket object that is forgotten closes its descriptor; when a new program fails half way, the program before it
# needs the connection again, so it is closed on purpose only.
in_use: Final[set[_socket.socket]] = set()


class Connection:
    """A connected socket; every method blocks for at most some seconds.

    Args:
        sock: Connected; owned from now on.

    Attributes:
        acknowledges: The back end agreed to answer what needs no reply (REPLY_ACK).
    """

    __slots__ = ("_sock", "acknowledges")

    def __init__(self, sock: _socket.socket) -> None:
        sock.settimeout(PATIENCE_S)
        self._sock = sock
        self.acknowledges = False

    @classmethod
    def open(cls, path: str, patience_s: float) -> Connection:
        """Connect to the back end that listens on ``path``, waiting at most so long for it to appear.

        Raises:
            ConfigError: The path cannot be a socket's.
            HostError: Nobody listens there; nothing is left behind.
        """
        size = len(os.fsencode(path))
        if not 0 < size <= MAX_PATH:
            raise ConfigError(f"vhost-user: path has {size} bytes, allowed 1 to {MAX_PATH}")
        deadline = monotonic_ns() + int(patience_s * 1e9)
        while True:
            sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
            try:
                sock.settimeout(PATIENCE_S)
                sock.connect(path)
            except OSError as e:
                sock.close()
                early = isinstance(e, FileNotFoundError | ConnectionRefusedError)
                if not early or monotonic_ns() >= deadline:
                    why = e.strerror or "no answer"
                    raise HostError(f"vhost-user: cannot connect to {path}: {why}") from e
            else:
                in_use.add(sock)
                return cls(sock)
            sleep(_RETRY_S)

    @classmethod
    def adopt(cls, fd: int) -> Connection:
        """Go on with the connection of the program before."""
        sock = _socket.socket(fileno=fd)
        in_use.add(sock)
        return cls(sock)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._sock.fileno()

    def close(self) -> None:
        """Hang up."""
        in_use.discard(self._sock)
        self._sock.close()

    def check_silent(self) -> None:
        """Look whether the back end said something by itself; does not block.

        Raises:
            LostError: it hung up.
            BackendError: it did, which nobody asked for.
        """
        self._sock.settimeout(0)
        try:
            said = self._sock.recv(1, _socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError as e:
            raise p.LostError(f"the back end hung up: {e.strerror}") from e
        finally:
            self._sock.settimeout(PATIENCE_S)
        if said:
            raise p.BackendError("the back end said what nobody had asked for")
        raise p.LostError("the back end hung up")

    def send(self, request: int, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Send a request without a reply; wait for its acknowledgement if there are any.

        Raises:
            BackendError: It was refused, or the connection is unusable now.
        """
        flags = p.VERSION | (p.NEED_REPLY if self.acknowledges else 0)
        self._send(request, flags, payload, fds)
        if not self.acknowledges:
            return
        (status,) = p.U64.unpack(self._reply(request, p.U64.size))
        if status:
            raise p.BackendError(f"the back end refused request {request}: status {status}")

    def ask(self, request: int, payload: bytes = b"", *, size: int) -> bytes:
        """Send a request and return the ``size`` bytes of its reply.

        Raises:
            BackendError: The reply is not one; the connection is unusable now.
        """
        self._send(request, p.VERSION, payload, ())
        return self._reply(request, size)

    def ask_for_fd(self, request: int, payload: bytes, *, size: int) -> tuple[bytes, int]:
        """Like :meth:`ask`, of a reply that brings exactly one descriptor, which the caller owns."""
        self._send(request, p.VERSION, payload, ())
        fds: list[int] = []
        try:
            reply = self._reply(request, size, fds)
            if len(fds) != 1:
                raise p.BackendError(
                    f"the reply to request {request} has {len(fds)} descriptors, not 1"
                )
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return reply, fds[0]

    def ask_u64(self, request: int) -> int:
        """Return the number that the back end replies."""
        (value,) = p.U64.unpack(self.ask(request, size=p.U64.size))
        return int(value)

    def _send(self, request: int, flags: int, payload: bytes, fds: Sequence[int]) -> None:
        data = p.HEADER.pack(request, flags, len(payload)) + payload
        rights = b"".join(fd.to_bytes(_FD_BYTES, sys.byteorder) for fd in fds)
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if fds else []
        try:
            sent = self._sock.sendmsg([data], ancillary)
            if sent < len(data):
                self._sock.sendall(data[sent:])
        except OSError as e:
            raise _lost(e, request) from e

    def _reply(self, request: int, size: int, fds: list[int] | None = None) -> bytes:
        kind, flags, length = p.HEADER.unpack(self._receive(p.HEADER.size, request, fds))
        if kind != request or flags & (p.VERSION_MASK | p.REPLY) != p.VERSION | p.REPLY:
            raise p.BackendError(
                f"the back end answered request {request} with message {kind}, flags {flags:#x}"
            )
        if length != size:
            raise p.BackendError(f"the reply to request {request} has {length} bytes, not {size}")
        return self._receive(length, request, None)

    def _receive(self, size: int, request: int, fds: list[int] | None) -> bytes:
        """Return exactly ``size`` bytes; descriptors go to ``fds``, or are closed if there is no such list."""
        data = b""
        while len(data) < size:
            try:
                room = _socket.CMSG_SPACE(p.MAX_FDS * _FD_BYTES)
                part, extras, _, _ = self._sock.recvmsg(
                    size - len(data), room, _socket.MSG_CMSG_CLOEXEC
                )
            except OSError as e:
                raise _lost(e, request) from e
            keep_fds(extras, fds)
            if not part:
                raise p.LostError(f"the back end hung up in request {request}")
            data += part
        return data


def keep_fds(extras: list[tuple[int, int, bytes]], fds: list[int] | None) -> int:
    """Put the descriptors that came with a message into ``fds``, or close them; return how many there were."""
    count = 0
    for level, kind, payload in extras:
        if (level, kind) != (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            continue
        for at in range(0, len(payload) - _FD_BYTES + 1, _FD_BYTES):
            fd = int.from_bytes(payload[at : at + _FD_BYTES], sys.byteorder)
            count += 1
            if fds is None:
                os.close(fd)
            else:
                fds.append(fd)
    return count


def _lost(error: OSError, request: int) -> p.BackendError:
    why = error.strerror or f"no answer in {PATIENCE_S:.0f} s"
    kind = p.LostError if isinstance(error, ConnectionError) else p.BackendError
    return kind(f"request {request} to the back end: {why}")
