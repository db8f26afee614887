"""``socket`` with ``tls-creds``: a stream socket that speaks TLS.

A session's keys live in this program's TLS library: it cannot cross an update. While there is one it stands against
updates, or is closed in order for them (``reopen-on-cpr=on``); the listener is kept either way. Between an update's
begin and its end nobody is let in: who comes then waits at the listener, and is served by the new program.
"""

from __future__ import annotations

import os
import select
from time import monotonic_ns

from instar import log
from instar.chardev.address import InetAddress
from instar.chardev.unix import FD_CONNECTION, SocketChardev
from instar.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Final

    from instar.chardev.base import FdTable
    from instar.chardev.state import SocketState
    from instar.chardev.tls import TlsCredentials
    from instar.chardev.tls_session import TlsSession
    from instar.chardev.unix import Address
    from instar.cpr.state import State
    from instar.loop import Loop, Timer

HANDSHAKE_NS: Final = 10_000_000_000  # a peer that takes longer is hung up on


class TlsSocketChardev(SocketChardev):
    """A stream socket with TLS; "opened" comes after the handshake.

    Args:
        ident: Unique id.
        address: Where.
        loop: The main loop.
        fds: Descriptors of the program before; its listener is used as it is.
        credentials: Certificates and keys; read at the start, and by a new program when the first client comes.
        reopen: Close the session for an update instead of standing against it; a client connects again after it.
        server: Listen; otherwise connect.
        nodelay: Send small pieces at once (TCP).
        reconnect_ms: As of a plain socket.
        resumed: There was a program before.

    Attributes:
        refused: Peers that were hung up on because of what they sent, or did not.

    Raises:
        ConfigError: The listener of the program before is elsewhere.
        HostError: The address is in use, the host refused, or the credentials cannot be read; nothing was created.
    """

    __slots__ = (
        "_credentials", "_deadline", "_frozen", "_read_soon", "_reopen", "_session", "_shaking", "refused",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - the options of the kind
        self,
        ident: str,
        address: Address,
        loop: Loop,
        fds: FdTable,
        *,
        credentials: TlsCredentials,
        reopen: bool,
        server: bool,
        nodelay: bool = False,
        reconnect_ms: int = 0,
        resumed: bool = False,
    ) -> None:
        self._credentials = credentials
        self._reopen = reopen
        self._session: TlsSession | None = None
        self._shaking: _socket.socket | None = None  # a connection whose handshake is not over
        self._deadline: Timer | None = None
        self._frozen = False  # nobody is let in: an update is under way
        self._read_soon = False
        self.refused = 0
        if not resumed:
            credentials.check()
        super().__init__(
            ident, address, loop, fds,
            server=server, nodelay=nodelay, reconnect_ms=reconnect_ms, resumed=resumed,
        )  # fmt: skip

    def wait_for_client(self) -> None:
        """Block until somebody has connected and shaken hands; before the guest starts only."""
        while self._listener is not None and not self.connected:
            if self._shaking is None:
                super().wait_for_client()
            else:
                self._wait_for_handshake(self._shaking)

    def _wait_for_handshake(self, sock: _socket.socket) -> None:
        limit = monotonic_ns() + HANDSHAKE_NS
        poller = select.poll()
        poller.register(sock.fileno(), select.POLLIN)
        while self._shaking is sock:
            left = limit - monotonic_ns()
            if left <= 0 or not poller.poll(left / 1e6):
                self._too_late()
            else:
                self._shake()

    def disconnect(self) -> None:
        """Hang up, saying so; a server accepts the next client."""
        session, self._session = self._session, None
        if session is not None:
            session.close()
        self._drop_shaking()
        super().disconnect()

    def update_blocker(self) -> str:
        """Return why an update would lose something now: there is a session, or the beginning of one."""
        if self._session is None or self._reopen:
            return ""
        return (
            f"chardev {self.id}: its TLS session cannot cross an update, the keys are in this program alone; "
            "end the connection, or use reopen-on-cpr=on"
        )

    def begin_update(self) -> None:
        """Let nobody in until the update has succeeded or failed."""
        self._frozen = True
        self._stop_connecting()
        self._rewatch()

    def leave(self) -> None:
        """Close the session in order: its peer connects again to the new program."""
        if self._session is None:
            return
        if self.connected:
            del self._out[: self._try_send(self._out)]
        say = log.warning if self._out or self._shaking is not None else log.info
        lost = f"; {len(self._out)} bytes were not taken and are lost" if self._out else ""
        what = "handshake" if self._shaking is not None else "session"
        say(f"chardev {self.id}: its TLS {what} was closed for the update{lost}")
        self.disconnect()

    def end_update(self) -> None:
        """Let peers in again: the update failed."""
        self._frozen = False
        self._rewatch()
        self._look_again()

    def peek_state(self) -> SocketState:
        """Return the state for a rehearsal: as it will be when :meth:`leave` has closed the session."""
        state = self.save_state()
        if self._session is not None:
            state.connected, state.unsent, state.gifts = False, b"", 0
        return state

    def load_state(self, state: State) -> None:
        """Go on with the listener; a client connects again."""
        super().load_state(state)
        self._look_again()

    def _look_again(self) -> None:
        """Connect again after an update that closed the connection; without ``reconnect-ms`` that is tried once."""
        gone = self._session is None and not self._frozen and self._timer is None
        if gone and not self._server and (self._reopen or self._reconnect_ns):
            self._timer = self._loop.call_later(0, self._try_now)

    def _try_later(self) -> None:
        if not self._frozen:
            super()._try_later()

    def _adopt(self, fds: FdTable) -> None:
        plain = fds.take(self.state_id, FD_CONNECTION)
        if plain >= 0:  # the program before spoke without TLS there
            os.close(plain)
        super()._adopt(fds)

    def _is_free(self) -> bool:
        return super()._is_free() and self._shaking is None and not self._frozen

    def _begin(self, sock: _socket.socket) -> None:
        sock.settimeout(0)
        host = self.address.host if isinstance(self.address, InetAddress) else ""
        try:
            self._session = self._credentials.begin(sock, host)
        except HostError as e:
            sock.close()
            self._say_refused(str(e))
            self._try_later()
            return
        self._shaking = sock
        self._deadline = self._loop.call_later(HANDSHAKE_NS, self._too_late)
        self._rewatch()  # the listener waits
        self._shake()

    def _shake(self) -> None:
        assert self._session is not None
        assert self._shaking is not None
        sock = self._shaking
        try:
            done = self._session.handshake()
        except OSError as e:
            from instar.chardev.tls_session import reason  # noqa: PLC0415 - loaded with the session

            self._refuse(f"TLS handshake failed: {reason(e)}")
            return
        if not done:
            writable = self._shake if self._session.unsent else None
            self._loop.watch(sock.fileno(), readable=self._shake, writable=writable)
            return
        self._stop_shaking()
        self._connected(sock)
        self._event("opened")
        self._rewatch()

    def _too_late(self) -> None:
        self._refuse(f"TLS handshake is not over after {HANDSHAKE_NS // 1_000_000_000} s")

    def _refuse(self, why: str) -> None:
        """Hang up on a peer before the front end knew of it."""
        self._session = None
        self._drop_shaking()
        self._say_refused(why)
        self._rewatch()
        self._try_later()

    def _say_refused(self, why: str) -> None:
        self.refused += 1
        log.limited(
            "warning", self.state_id, f"{why}; the connection was closed, {self.refused} so far"
        )

    def _drop_shaking(self) -> None:
        sock = self._stop_shaking()
        if sock is not None:
            sock.close()

    def _stop_shaking(self) -> _socket.socket | None:
        sock, self._shaking = self._shaking, None
        if sock is not None:
            self._loop.unwatch(sock.fileno())
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        return sock

    def _rewatch(self) -> None:
        super()._rewatch()
        more = self.connected and self._session is not None and self._session.more
        if more and not self._read_soon and self._can_receive() > 0:
            self._read_soon = True
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        """Take input that is decrypted, or in memory, where the loop does not see it."""
        self._read_soon = False
        if self.connected:
            self._on_readable()

    def _has_output(self) -> bool:
        return super()._has_output() or (self._session is not None and self._session.unsent)

    def _read(self, size: int) -> bytes:
        assert self._session is not None
        try:
            return self._session.read(size)
        except BlockingIOError:
            raise
        except OSError as e:
            from instar.chardev.tls_session import reason  # noqa: PLC0415 - loaded with the session

            self._say_refused(f"TLS session broken: {reason(e)}")
            raise

    def _send(self, data: bytes | bytearray) -> int:
        assert self._session is not None
        sent = self._session.write(data)
        if self._session.unsent:
            self._rewatch()
        return sent
