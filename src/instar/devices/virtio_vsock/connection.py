"""One connection: what it owes the guest and what it owes the host's peer."""

from __future__ import annotations

from instar.devices.virtio_vsock import packet as p
from instar.devices.virtio_vsock.state import (
    BUFFER,
    ESTABLISHED,
    NO_RECEIVE,
    NO_SEND,
    OWE_CREDIT,
    OWE_REQUEST,
    OWE_RESPONSE,
    OWE_SHUTDOWN,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Protocol

    from instar.devices.virtio_vsock.state import VsockConnectionState
    from instar.virtio.queue import Chain
    from instar.vsock.host import Front

    class VsockHost(Protocol):
        """The host's side: streams by number.

        Called with the machine lock held; from the main thread where not said otherwise.
        """

        def attach(self, front: Front, /) -> None:
            """Become the device of these streams."""
            ...

        def later(self) -> None:
            """Call ``front.pump()`` in the main loop, once, when the machine runs; from any thread."""
            ...

        def idents(self) -> list[int]:
            """Return the numbers of the streams that a device may have."""
            ...

        def connect(self, port: int, /) -> int:
            """Connect to the listener of ``port`` and return the stream's number, -1 if there is none."""
            ...

        def accepted(self, ident: int, port: int, /) -> None:
            """Tell a host's peer that the guest accepted it, as ``port``."""
            ...

        def send(self, ident: int, data: list[memoryview], /) -> int:
            """Send what is taken now; return how many bytes, -1 if the peer takes none any more."""
            ...

        def receive(self, ident: int, room: list[memoryview], /) -> int:
            """Receive into ``room``; return how many bytes, 0 at the end, -1 if there is nothing now."""
            ...

        def shut_down(self, ident: int, /) -> None:
            """Tell the peer that nothing more comes."""
            ...

        def want(self, ident: int, *, readable: bool, writable: bool) -> None:
            """Call ``front.host_ready(ident)`` once, when the stream is ready for that and the machine runs."""
            ...

        def close(self, idents: list[int], /) -> None:
            """Close these streams; from any thread."""
            ...


_WORD: Final = 0xFFFF_FFFF
MAX_PAYLOAD: Final = 64 * 1024
_OWED: Final = (
    (OWE_REQUEST, p.REQUEST),
    (OWE_RESPONSE, p.RESPONSE),
    (OWE_SHUTDOWN, p.SHUTDOWN),
    (OWE_CREDIT, p.CREDIT_UPDATE),
)


class Connection:
    """A live connection over its state.

    Attributes:
        readable: The host's stream has bytes, as far as is known; derived.
    """

    __slots__ = ("host", "readable", "state")

    def __init__(self, state: VsockConnectionState, host: VsockHost) -> None:
        self.state = state
        self.host = host
        self.readable = False

    @property
    def over(self) -> bool:
        """Whether neither side will hear any more: only a reset is left to be sent."""
        s = self.state
        guest_done = bool(s.guest_shut & NO_SEND) and not s.unsent
        return (guest_done or s.deaf) and (s.ended or bool(s.guest_shut & NO_RECEIVE))

    def credit(self) -> int:
        """Return how many bytes the guest has room for."""
        s = self.state
        return max(0, s.peer_buffer - ((s.sent - s.peer_forwarded) & _WORD))

    def watch(self) -> None:
        """Ask the host for what this connection waits for."""
        s = self.state
        open_ = s.stage == ESTABLISHED and not s.ended and not s.guest_shut & NO_RECEIVE
        self.host.want(
            s.ident, readable=open_ and not self.readable, writable=bool(s.unsent) and not s.deaf
        )

    # ------------------------------------------------------------------- from the guest

    def take(self, chain: Chain, length: int) -> bool:
        """Pass ``length`` bytes on to the host; False if the guest had no right to send them."""
        s = self.state
        if (
            s.stage != ESTABLISHED
            or s.guest_shut & NO_SEND
            or length > BUFFER - len(s.unsent) - self._untold()
        ):
            return False
        views = chain.sources(p.HEADER_SIZE, length)
        done = 0 if s.unsent or s.deaf else self._send(views)
        if not s.deaf:
            s.unsent += b"".join(views)[done:]
            self._forwarded(done)
        else:
            self._forwarded(length)
        return True

    def flush(self) -> None:
        """Send what the host did not take before."""
        s = self.state
        if s.unsent and not s.deaf:
            done = self._send([memoryview(s.unsent)])
            if not s.deaf:
                s.unsent = s.unsent[done:]
                self._forwarded(done)

    def end_output(self) -> None:
        """Tell the host's peer once everything of a guest that will not send any more was sent."""
        s = self.state
        if s.guest_shut & NO_SEND and not s.unsent and not s.shut_down and not s.deaf:
            s.shut_down = True
            self.host.shut_down(s.ident)

    def _untold(self) -> int:
        """Return bytes of the buffer that are free, but of which the guest does not know."""
        return (self.state.forwarded - self.state.told) & _WORD

    def _send(self, views: list[memoryview]) -> int:
        s = self.state
        done = self.host.send(s.ident, views)
        if done < 0:
            s.deaf = True
            s.owed |= OWE_SHUTDOWN
            self._forwarded(len(s.unsent))
            s.unsent = b""
            return 0
        return done

    def _forwarded(self, count: int) -> None:
        s = self.state
        s.forwarded = (s.forwarded + count) & _WORD
        if self._untold() >= BUFFER // 4:
            s.owed |= OWE_CREDIT

    # ------------------------------------------------------------------- to the guest

    def fill(self, chain: Chain, guest_cid: int) -> int:
        """Put the next packet into ``chain``; return its length, 0 if there is none."""
        s = self.state
        for bit, op in _OWED:
            if s.owed & bit:
                s.owed &= ~bit
                flags = self._shut_flags() if op == p.SHUTDOWN else 0
                chain.write(self._header(guest_cid, op, flags=flags))
                return p.HEADER_SIZE
        length = self._data(chain)
        if not length:
            return self.fill(chain, guest_cid) if s.owed else 0
        s.sent = (s.sent + length) & _WORD
        chain.write(self._header(guest_cid, p.RW, length=length))
        chain.filled(p.HEADER_SIZE, length)
        return p.HEADER_SIZE + length

    def _data(self, chain: Chain) -> int:
        """Receive from the host straight into the guest's buffer."""
        s = self.state
        room = min(chain.room - p.HEADER_SIZE, self.credit(), MAX_PAYLOAD)
        closed = s.stage != ESTABLISHED or s.ended or s.guest_shut & NO_RECEIVE
        if closed or not self.readable or room <= 0:
            return 0
        length = self.host.receive(s.ident, chain.targets(p.HEADER_SIZE, room))
        if length == 0:
            s.ended = True
            s.owed |= OWE_SHUTDOWN
        if length <= 0:
            self.readable = False
        return max(0, length)

    def _shut_flags(self) -> int:
        s = self.state
        return (NO_SEND if s.ended else 0) | (NO_RECEIVE if s.deaf else 0)

    def _header(self, guest_cid: int, op: int, *, length: int = 0, flags: int = 0) -> bytes:
        s = self.state
        s.told = s.forwarded
        if op != p.SHUTDOWN:
            s.owed &= ~OWE_CREDIT
        return p.header(
            guest_cid,
            s.host_port,
            s.guest_port,
            op,
            length=length,
            flags=flags,
            buffer=BUFFER,
            forwarded=s.forwarded,
        )
