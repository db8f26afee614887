"""How descriptors and news travel to a program that was started beside this one: over a unix stream socket.

::

    message   magic, format, length, crc32, count of descriptors; a record of that length (``encoding``);
              then one byte for each group of descriptors, which come with it (SCM_RIGHTS)

Both sides take what arrives for untrusted. Not on the resume path: the guest runs while this is loaded.

Source: own; Linux's unix(7).
"""

from __future__ import annotations

import os
import socket
from array import array
from struct import Struct
from typing import TYPE_CHECKING
from zlib import crc32

from instar.cpr.adopted import LEASE, Adopted
from instar.cpr.encoding import decode, encode
from instar.cpr.errors import CprError, PeerError, TakenOverError
from instar.cpr.fds import Fds
from instar.cpr.lease import DECISION, WORK, Lease

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from instar.cpr.state import Record

MAGIC: Final = b"INSTARTR"
FORMAT: Final = 1
GROUP: Final = 64  # descriptors in one go; the kernel takes at most 253
MAX_FDS: Final = 4096
MAX_TABLE: Final = 1 << 24  # bytes of a message with descriptors
MAX_WORDS: Final = 1 << 20  # bytes of a message without
MAX_REASON: Final = 1000  # characters
_HEADER: Final = Struct("<8sIIII")
_INT: Final = array("i").itemsize
_KEYS: Final = {"fds", "info"}
_WHAT: Final = "the other program's message"


class Sender:
    """One message on its way.

    Args:
        sock: A unix stream socket; any other will do for a message without descriptors.
        record: What to say.
        fds: Descriptors that go along; they may be closed once everything is out.
    """

    def __init__(self, sock: socket.socket, record: Record, fds: Sequence[int] = ()) -> None:
        self._sock = sock
        self._fds = list(fds)
        data = encode(record)
        head = _HEADER.pack(MAGIC, FORMAT, len(data), crc32(data), len(self._fds))
        self._left = memoryview(head + data)

    def send(self) -> bool:
        """Send what the socket takes; true when everything is out.

        Raises:
            PeerError: The other program is gone, or takes no more descriptors.
        """
        try:
            while self._left:
                sent = self._sock.send(self._left, socket.MSG_NOSIGNAL)
                self._left = self._left[sent:]
            while self._fds:
                rights = array("i", self._fds[:GROUP])
                ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
                self._sock.sendmsg([b" "], ancillary, socket.MSG_NOSIGNAL)
                del self._fds[:GROUP]
        except BlockingIOError:
            return False
        except OSError as exc:
            raise PeerError(f"the other program is gone: {os.strerror(exc.errno or 0)}") from exc
        return True


class Receiver:
    """One message that arrives.

    Args:
        sock: As for :class:`Sender`; with a limit of time it is waited for, without blocking it is taken as it comes.
        max_size: Bytes.
        max_fds: Descriptors.

    Attributes:
        fds: Those that arrived, close-on-exec; :meth:`close` closes them.
    """

    def __init__(
        self, sock: socket.socket, *, max_size: int = MAX_WORDS, max_fds: int = 0
    ) -> None:
        self.fds: list[int] = []
        self._sock = sock
        self._max_size = max_size
        self._max_fds = max_fds
        self._data = bytearray()
        self._wanted = _HEADER.size
        self._crc = 0
        self._count = -1  # not known yet

    def receive(self) -> Record | None:
        """Take what has come.

        Returns:
            The record; None if not everything has come yet.

        Raises:
            PeerError: It hung up, said nothing for too long, or what it said is no message.
        """
        try:
            self._fill()
            if self._count < 0:
                self._read_header()
                self._fill()
            while len(self.fds) < self._count:
                self._take_group()
        except BlockingIOError:
            return None
        except TimeoutError as exc:
            raise PeerError("the other program stopped in the middle of a message") from exc
        except OSError as exc:
            raise PeerError(f"the other program is gone: {os.strerror(exc.errno or 0)}") from exc
        return self._record()

    def close(self) -> None:
        """Close the descriptors that arrived."""
        fds, self.fds = self.fds, []
        for fd in fds:
            os.close(fd)

    def _fill(self) -> None:
        while len(self._data) < self._wanted:
            part = self._sock.recv(self._wanted - len(self._data))
            if not part:
                raise PeerError("the other program hung up")
            self._data += part

    def _read_header(self) -> None:
        magic, number, length, self._crc, count = _HEADER.unpack(self._data)
        if magic != MAGIC or number != FORMAT:
            raise PeerError(f"{_WHAT}: magic {magic.hex()}, format {number}; it is none of ours")
        if length > self._max_size or count > self._max_fds:
            limits = f"limits {self._max_size} and {self._max_fds}"
            raise PeerError(f"{_WHAT}: {length} bytes with {count} descriptors, {limits}")
        self._data.clear()
        self._wanted = length
        self._count = count

    def _take_group(self) -> None:
        room = socket.CMSG_SPACE(GROUP * _INT)
        data, ancillary, flags, _ = self._sock.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)
        before = len(self.fds)
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self.fds += array("i", content[: len(content) - len(content) % _INT])
        if not data:
            raise PeerError("the other program hung up")
        if flags & socket.MSG_CTRUNC or not before < len(self.fds) <= self._count:
            raise PeerError(
                f"{_WHAT}: {len(self.fds)} of {self._count} descriptors, and then not as agreed"
            )

    def _record(self) -> Record:
        data = bytes(self._data)
        if crc32(data) != self._crc:
            raise PeerError(f"{_WHAT}: damaged")
        record = decode(data, _WHAT)
        if not isinstance(record, dict):
            raise PeerError(f"{_WHAT}: is not a record")
        return record  # pyright: ignore[reportUnknownVariableType]


class TransferCarrier:
    """Hand a table of descriptors and a little news to a program at the other end of a socket.

    Args:
        sock: Connected; not closed here.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._contender: Lease | None = None
        self._sender: Sender | None = None

    def save(self, fds: Fds, info: Record) -> None:
        """Write down what the new program gets.

        Args:
            fds: A table of this transfer's own. The lease in it is opened anew, so that the two contend for it.
            info: News; the lease's count is added.

        Raises:
            DescriptorError: A descriptor is not what it was when it was saved.
            OSError: The host has no descriptor left.
        """
        lease = Lease(fds.find(LEASE, 0))
        self._contender = lease.reopen()
        fds.resave(LEASE, 0, self._contender.fd, kind="memfd", owner="cpr")
        fds.verify()
        record: Record = {"fds": fds.to_record(), "info": {**info, "count": lease.count}}
        self._sender = Sender(self._sock, record, [entry.fd for entry in fds.walk()])

    def send(self) -> bool:
        """Send what the socket takes; true when everything is out (PeerError: as :meth:`Sender.send`)."""
        if self._sender is not None and not self._sender.send():
            return False
        self.drop()
        return True

    def drop(self) -> None:
        """Forget what was saved; again is fine."""
        contender, self._contender = self._contender, None
        self._sender = None
        if contender is not None:
            os.close(contender.fd)


class Transferred(Adopted):
    """What a program that runs beside this one hands over. It goes on itself unless this one commits."""

    __slots__ = ("_expected",)

    def __init__(self, fds: Fds, info: Record, expected: int) -> None:
        super().__init__(fds, info, ("", ""), [])
        self._expected = expected

    def commit(self) -> None:
        """Take the lease: from here on the other program never goes on.

        Raises:
            TakenOverError: It has gone on by itself; end at once, and touch nothing.
        """
        lease = Lease(self.fds.find(LEASE, 0))
        if not lease.lock(WORK):
            raise TakenOverError("the other program did not give the guest up; this one ends")
        lease.commit(self._expected)
        lease.unlock(DECISION)
        self.committed = True

    def go_back(self, reason: str) -> None:
        """Do nothing: nothing was replaced."""


def receive_table(sock: socket.socket) -> Transferred:
    """Take over what the program at the other end hands out.

    Args:
        sock: With a limit of time; not closed here.

    Raises:
        CprError: It is not what was agreed; everything that arrived is closed again.
    """
    receiver = Receiver(sock, max_size=MAX_TABLE, max_fds=MAX_FDS)
    try:
        record = receiver.receive()
        if record is None:
            raise PeerError("the other program said nothing")
        return _transferred(record, receiver.fds)
    except BaseException:
        receiver.close()
        raise


def _transferred(record: Record, numbers: list[int]) -> Transferred:
    rows = record.get("fds")
    info = record.get("info")
    if set(record) != _KEYS or not isinstance(rows, list) or not isinstance(info, dict):
        raise PeerError(f"{_WHAT}: expected the keys {', '.join(sorted(_KEYS))}")
    items: list[object] = rows  # pyright: ignore[reportUnknownVariableType]
    if len(items) != len(numbers):
        raise PeerError(f"{_WHAT}: {len(items)} names for {len(numbers)} descriptors")
    for row, number in zip(items, numbers, strict=True):
        if isinstance(row, dict):
            row["fd"] = number
    fds = Fds.from_record(items)
    news: Record = info  # pyright: ignore[reportUnknownVariableType]
    count = news.get("count")
    if fds.find(LEASE, 0) < 0 or type(count) is not int or count < 0:
        raise PeerError(f"{_WHAT}: no lease came along; nothing was adopted")
    return Transferred(fds, news, count)


def reason_in(record: Record) -> str:
    """Return why the other program refuses, "" if it does not; nothing longer than a sentence is believed."""
    text = record.get("error", "")
    return text[:MAX_REASON] if isinstance(text, str) else "it refuses, and does not say why"


def told(error: BaseException) -> Record:
    """Return the message that says why this program refuses."""
    text = str(error) if isinstance(error, CprError) else str(error) or repr(error)
    return {"error": text[:MAX_REASON]}
