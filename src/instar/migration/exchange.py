"""Say something to the program at the other end of a socket and wait for its answer, while the main loop goes on.

Not on the resume path. Source: own.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from instar.cpr.errors import CprError, PeerError
from instar.cpr.transfer import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable

    from instar.cpr.state import Record
    from instar.loop import Loop

WAITING = "waiting"  # in an answer that is none yet: a person decides when there will be one


class Exchange:
    """One exchange; it begins at once.

    Args:
        loop: The main loop.
        sock: Connected, not blocking; not closed here.
        send: Sends what the socket takes now; true when everything is out.
        limit_ms: How long the answer may take.
        on_end: Called once, from the main loop.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        send: Callable[[], bool],
        limit_ms: int,
        on_end: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._send = send
        self._on_end = on_end
        self._receiver = Receiver(sock)
        self._limit_ms = limit_ms
        self._timer = loop.call_later(limit_ms * 1_000_000, self._too_long)
        self._answer: Record | None = None
        self._error: CprError | None = None
        loop.watch(self._fd, readable=self._read, writable=self._write)

    def result(self) -> Record:
        """Return the answer.

        Raises:
            CprError: There is none, and why.
        """
        if self._answer is None:
            raise self._error or PeerError("the other program did not answer")
        return self._answer

    def stop(self) -> None:
        """Neither send nor wait any more; again is fine."""
        self._timer.cancel()
        if self._fd >= 0:
            self._loop.unwatch(self._fd)
            self._fd = -1

    def _write(self) -> None:
        try:
            if self._send():
                self._loop.watch(self._fd, readable=self._read)
        except CprError as e:
            self._take_last_words(e)

    def _take_last_words(self, error: CprError) -> None:
        """It does not listen any more; it may have said why."""
        try:
            self._answer = self._receiver.receive()
        except CprError:
            self._answer = None
        self._end(None if self._answer is not None else error)

    def _read(self) -> None:
        try:
            answer = self._receiver.receive()
        except CprError as e:
            self._end(e)
            return
        if answer is None:
            return
        if answer.get(WAITING) is True:
            self._timer.cancel()
            self._receiver = Receiver(self._sock)
            return
        self._answer = answer
        self._end(None)

    def _too_long(self) -> None:
        self._end(PeerError(f"the target did not answer within {self._limit_ms} ms"))

    def _end(self, error: CprError | None) -> None:
        self._error = error
        self.stop()
        self._on_end()


class BytesSender:
    """Send bytes over a socket.

    Args:
        sock: Not blocking.
        data: What to send.
    """

    def __init__(self, sock: socket.socket, data: bytes) -> None:
        self._sock = sock
        self._left = memoryview(data)

    def send(self) -> bool:
        """Send what the socket takes; true when everything is out.

        Raises:
            PeerError: The other program is gone.
        """
        try:
            while self._left:
                self._left = self._left[self._sock.send(self._left, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            return False
        except OSError as e:
            raise PeerError(f"the target is gone: {os.strerror(e.errno or 0)}") from e
        return True


class FileSender:
    """Send a memfd over a socket, then say that nothing more comes.

    Args:
        sock: Not blocking.
        first: Sent before.
        fd: The memfd; it stays open.
    """

    def __init__(self, sock: socket.socket, first: bytes, fd: int) -> None:
        self._sock = sock
        self._over = False
        self._data = BytesSender(sock, first + os.pread(fd, os.fstat(fd).st_size, 0))

    def send(self) -> bool:
        """Send what the socket takes; true when everything is out.

        Raises:
            PeerError: The other program is gone.
        """
        if self._over:
            return True
        if not self._data.send():
            return False
        try:
            self._sock.shutdown(socket.SHUT_WR)
            self._over = True
        except OSError as e:
            raise PeerError(f"the target is gone: {os.strerror(e.errno or 0)}") from e
        return True


def connect(family: int, where: object) -> socket.socket:
    """Return a connection that does not block; OSError if nobody listens."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(_CONNECT_S)
        sock.connect(where)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        sock.settimeout(0)
    except BaseException:
        sock.close()
        raise
    return sock


_CONNECT_S = 2.0  # on one host a connection is made at once, or the listener is overrun
