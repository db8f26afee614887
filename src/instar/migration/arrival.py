"""The new program's half of cpr-transfer: a guest arrives from a program that runs beside this one.

First its descriptors, over the cpr channel, before anything is made of them; then, when this program's machine is
there, the state over the main channel. What comes is collected whole before any of it is looked at.

Not on the resume path: the guest runs while this is loaded. Source: own; docs/decisions/0010.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

from instar import log
from instar._version import VERSION
from instar.cpr.errors import CprError, PeerError
from instar.cpr.manifest import MAX_SECTIONS
from instar.cpr.stream import MAX_MANIFEST
from instar.cpr.transfer import Sender, Transferred, receive_table, told
from instar.cpr.versions import readable_versions
from instar.errors import HostError
from instar.migration.channels import MAIN_FD, SocketAddress
from instar.migration.exchange import WAITING
from instar.migration.preview import ANSWER, LENGTH, MARK

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from instar.cpr.state import Record
    from instar.loop import Loop
    from instar.migration.report import Report

PATIENCE_S: Final = 10.0  # for a message that has begun
_MAX_STATE: Final = MAX_MANIFEST + MAX_SECTIONS + 4096  # bytes; RAM is not in it
_MAX_CLIENTS: Final = 8
_LACKING: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_TURN: Final = 1 << 20  # bytes read in one go


class Arrival:
    """One guest that arrives; make one with :func:`wait_for_source`.

    Args:
        transferred: What came over the cpr channel.
        cpr: That channel.

    Attributes:
        transferred: As given.
    """

    def __init__(self, transferred: Transferred, cpr: socket.socket) -> None:
        self.transferred = transferred
        self._cpr = cpr
        self._loop: Loop | None = None
        self._listener: socket.socket | None = None
        self._place = SocketAddress("").place
        self._clients: dict[int, _Client] = {}
        self._line: socket.socket | None = None
        self._on_state: Callable[[], object] = bool
        self._on_preview: Callable[[int], bool] = bool
        self._on_lost: Callable[[str], object] = bool

    def watch(self, loop: Loop, on_lost: Callable[[str], object]) -> None:
        """Notice when the source gives the transfer up; ``on_lost`` is called with a sentence then."""
        self._loop = loop
        self._on_lost = on_lost
        self._cpr.settimeout(0)
        loop.watch(self._cpr.fileno(), readable=self._lost)

    def wait_for_person(self) -> None:
        """Tell the source that somebody decides when this program is ready."""
        self._say(self._cpr, {WAITING: True})

    def listen(
        self,
        address: SocketAddress,
        on_state: Callable[[], object],
        on_preview: Callable[[int], bool],
    ) -> None:
        """Tell the source that this program is ready, and wait for the state.

        Args:
            address: Where the main channel is.
            on_state: Called when all state lies in the memfd ``migration/main`` of the table.
            on_preview: Called with a memfd when a state was sent ahead (:mod:`instar.migration.preview`); returns
                whether it is of use.

        Raises:
            HostError: Nothing can listen there.
        """
        self._on_state = on_state
        self._on_preview = on_preview
        self._place = address.place
        try:
            listener = self._listener = socket.socket(fileno=self._place.listen().detach())
        except OSError as e:
            raise HostError(f"cannot listen on {address.uri}: {e.strerror or e}") from e
        listener.settimeout(0)
        self._get_loop().watch(listener.fileno(), readable=self._accept)
        self._say(
            self._cpr,
            {
                "program": VERSION,
                "previews": True,
                "reads": {name: list(v) for name, v in readable_versions().items()},
            },
        )

    def refuse(self, error: BaseException) -> None:
        """Tell the source why this program does not take over."""
        try:
            self._say(self._line or self._cpr, told(error))
        except CprError:  # it is gone: nobody is left to tell
            return

    def done(self, report: Report) -> None:
        """Tell the source that this program has taken over; it may be gone."""
        try:
            self._say(self._line or self._cpr, {"resumed-ns": report.resumed_ns})
        except CprError as e:
            log.warning(f"cpr-transfer: {e}; the guest goes on here")
        self.close()

    def close(self) -> None:
        """Close all channels."""
        self.stop_listening()
        for sock in (self._cpr, self._line):
            if sock is not None and sock.fileno() >= 0:
                self._get_loop().unwatch(sock.fileno())
                sock.close()

    def _say(self, sock: socket.socket, record: Record) -> None:
        # A few hundred bytes into an empty buffer: they fit, or the other end is no program of ours.
        if not Sender(sock, record).send():
            raise PeerError("the other program does not listen")

    def _get_loop(self) -> Loop:
        assert self._loop is not None
        return self._loop

    def _lost(self) -> None:
        self._get_loop().unwatch(self._cpr.fileno())
        self._on_lost("the program that has the guest gave the transfer up")

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError as e:
            if e.errno in _LACKING:  # it would wait in vain, and the guest with it
                self.stop_listening()
                self._on_lost(f"cannot accept the source: {os.strerror(e.errno)}")
            return  # else it went away before we came
        if len(self._clients) >= _MAX_CLIENTS:
            sock.close()
            return
        sock.settimeout(0)
        client = _Client(sock, str(self.transferred.info.get("nonce")).encode())
        self._clients[sock.fileno()] = client
        self._get_loop().watch(sock.fileno(), readable=lambda: self._read(client))

    def _read(self, client: _Client) -> None:
        try:
            finished = client.read()
            if client.preview >= 0:
                self._look_ahead(client)
                return
        except (PeerError, OSError) as e:
            log.warning(
                f"cpr-transfer: somebody connected to the main channel: {e}; it goes on waiting"
            )
            self._drop(client)
            return
        if not finished:
            return
        self._get_loop().unwatch(client.sock.fileno())
        self._get_loop().unwatch(self._cpr.fileno())  # if the source is gone now, this one goes on
        del self._clients[client.sock.fileno()]
        self._line = client.sock
        self.transferred.fds.save(*MAIN_FD, client.memfd, kind="memfd", owner="migration")
        self._on_state()
        self.stop_listening()  # by now the guest runs, or this program ends

    def _look_ahead(self, client: _Client) -> None:
        fd, client.preview = client.preview, -1
        try:
            self._say(client.sock, {ANSWER: self._on_preview(fd)})
        finally:
            os.close(fd)

    def _drop(self, client: _Client) -> None:
        self._get_loop().unwatch(client.sock.fileno())
        del self._clients[client.sock.fileno()]
        client.close()

    def stop_listening(self) -> None:
        """Close the main channel's listener, and whatever else connected to it; again is fine."""
        for client in list(self._clients.values()):
            self._drop(client)
        listener, self._listener = self._listener, None
        if listener is not None:
            self._get_loop().unwatch(listener.fileno())
            listener.close()
            self._place.remove()


class _Client:
    """Somebody who says to be the source: it has to say the nonce first.

    Attributes:
        sock: The connection.
        memfd: Where the state goes.
        preview: A memfd with what was sent ahead, once it is whole; -1: there is none, or it was taken.
    """

    def __init__(self, sock: socket.socket, nonce: bytes) -> None:
        self.sock = sock
        self.memfd = os.memfd_create("instar-migration", os.MFD_CLOEXEC)
        self.preview = -1
        self._nonce = nonce
        self._head = b""  # what came until it is known what comes
        self._known = False
        self._size = 0

    def read(self) -> bool:
        """Take what has come; true at the end. It returns early with a preview.

        Raises:
            PeerError: It is not the source, or sends too much.
            OSError: The connection broke, or the host has no memory.
        """
        while self.preview < 0:
            try:
                data = self.sock.recv(_TURN if self._known else self._missing())
            except BlockingIOError:
                return False
            if not data:
                return self._end()
            if self._known:
                self._keep(data)
            else:
                self._head += data
                self._look()
        return False

    def _missing(self) -> int:
        """Return how many bytes it takes to know what comes; a preview belongs to them."""
        start = len(self._nonce)
        needed = start + len(MARK)
        if self._head[start:needed] == MARK:
            needed += LENGTH
            if len(self._head) >= needed:
                size = int.from_bytes(self._head[needed - LENGTH : needed], "little")
                if size > _MAX_STATE:
                    raise PeerError(f"a preview of {size} bytes, limit {_MAX_STATE}")
                needed += size
        return needed - len(self._head)

    def _look(self) -> None:
        start = len(self._nonce)
        if not self._nonce.startswith(self._head[:start]):
            raise PeerError("it is not the program that has the guest")
        if self._missing():
            return
        self._known = True
        first, rest = self._head[start : start + len(MARK)], self._head[start + len(MARK) :]
        self._head = b""
        if first == MARK:
            self.preview = os.memfd_create("instar-preview", os.MFD_CLOEXEC)
            os.write(self.preview, rest[LENGTH:])
        else:
            self._keep(first)

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > _MAX_STATE:
            raise PeerError(f"more than {_MAX_STATE} bytes of state")
        os.write(self.memfd, data)

    def _end(self) -> bool:
        if not self._known:
            raise PeerError("it is not the program that has the guest")
        return True

    def close(self) -> None:
        """Forget it."""
        os.close(self.memfd)
        self.sock.close()


def wait_for_source(address: SocketAddress) -> Arrival:
    """Listen on the cpr channel until a program hands its descriptors over; whoever else connects is sent away.

    Raises:
        HostError: Nothing can listen there.
    """
    place = address.place
    try:
        listener = socket.socket(fileno=place.listen().detach())
    except OSError as e:
        raise HostError(f"cannot listen on {address.uri}: {e.strerror or e}") from e
    try:
        while True:
            sock, _ = listener.accept()
            sock.settimeout(PATIENCE_S)
            try:
                return Arrival(receive_table(sock), sock)
            except CprError as e:
                log.warning(
                    f"cpr-transfer: somebody connected to the cpr channel: {e}; it goes on waiting"
                )
                _send_away(sock, e)
    finally:
        listener.close()
        place.remove()


def _send_away(sock: socket.socket, error: CprError) -> None:
    try:
        Sender(sock, told(error)).send()
    except CprError:  # it is gone
        pass
    finally:
        sock.close()
