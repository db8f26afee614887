"""What every network back end has: a card in front of it, frames in batches, and back-pressure both ways."""

from __future__ import annotations

import os
from struct import Struct

from instar import log
from instar.errors import ConfigError
from instar.netdev.state import NetdevState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import ClassVar, Final, Protocol

    from instar.loop import Loop
    from instar.netdev.spec import NetSpec

    Emit = Callable[[str, dict[str, object]], object]

    class FdTable(Protocol):
        """What is needed of the table of named descriptors (``instar.cpr.fds.Fds``)."""

        def find(self, name: str, ident: int, /) -> int:
            """Return the descriptor, which stays under its name; -1 if there is none."""
            ...

        def take(self, name: str, ident: int, /) -> int:
            """Hand out the descriptor and forget its name; -1 if there is none."""
            ...

        def resave(self, name: str, ident: int, fd: int, /, *, kind: str, owner: str) -> None:
            """Keep ``fd`` under this name, replacing an earlier one."""
            ...

        def delete(self, name: str, ident: int, /) -> object:
            """Forget the name; the descriptor is not closed. Not there is fine."""
            ...

    class FrontEnd(Protocol):
        """The line to a card; called in the main thread."""

        def room(self) -> int:
            """Return how many frames to read now; after 0, ``accept_input`` is called when there is room."""
            ...

        def deliver(self, frames: Sequence[bytes], /) -> int:
            """Hand frames to the guest; return how many it took. After fewer than all, as :meth:`room`."""
            ...

        def drained(self) -> None:
            """Hear that ``send`` takes frames again."""
            ...


BATCH: Final = 64  # frames moved under one lock, so that the guest is not kept waiting for long
MAX_FRAME: Final = 4096 + 65536  # bytes; QEMU's limit, above what segmentation offload makes
HEADER: Final = 12  # bytes of struct virtio_net_hdr_v1 before each frame of a card
LENGTH: Final = Struct("!I")
FD_OWNER: Final = "netdev"


class NetBackend:
    """Carries the frames of one card.

    Args:
        spec: What it is.
        loop: The main loop; everything happens in its thread.
        emit: Tells QMP events.

    Attributes:
        connected: Somebody is at the other end. Without that, frames are dropped, as without a cable.
        dropped: Frames that were not sent: the host refused them.
        resumed: The program before had it; what has no descriptor then was without one. Set before ``open``.
        inert: This is a rehearsal: nothing is made, and the host is told nothing. Set before ``open``.
        patience_s: How long ``open`` may wait for a server that is just starting.
    """

    __slots__ = (
        "_emit", "_fd", "_front", "_input", "_loop", "_unsent", "_waiting", "_watched", "connected", "dropped",
        "inert", "patience_s", "resumed", "spec",
    )  # fmt: skip
    kind: ClassVar[str] = ""

    def __init__(self, spec: NetSpec, loop: Loop, emit: Emit) -> None:
        self.spec = spec
        self.connected = True
        self.dropped = 0
        self.resumed = False
        self.inert = False
        self.patience_s = 0.0
        self._loop = loop
        self._emit = emit
        self._fd = -1
        self._front: FrontEnd | None = None
        self._waiting: list[bytes] = []  # read, not taken by the guest
        self._input = bytearray()  # the half of a frame, on a stream
        self._unsent = bytearray()  # the rest of a frame, on a stream
        self._watched = (-1, False, False)

    @property
    def id(self) -> str:
        """Its unique name."""
        return self.spec.id

    @property
    def name(self) -> str:
        """Under which its descriptors cross an update."""
        return f"netdev/{self.spec.id}"

    @property
    def info(self) -> str:
        """What ``info network`` shows of its other end."""
        return ""

    def open(self, fds: FdTable) -> None:
        """Take over the descriptors of the program before, or make them.

        Raises:
            HostError: the host refused; nothing was created.
        """
        raise NotImplementedError

    def attach(self, front: FrontEnd | None) -> None:
        """Connect the card; None takes it away, and what comes then waits at the host."""
        self._front = front
        self.accept_input()

    def accept_input(self) -> None:
        """Go on reading: the guest has room."""
        self._deliver()
        self._rewatch()

    def queue(self, index: int) -> NetBackend | None:
        """Return one of its queues; None if it has fewer."""
        return self if index == 0 else None

    def use(self, *, active: bool) -> None:
        """Say whether the guest uses this queue; only a back end with several has something to do."""

    def set_offload(self, flags: int) -> None:
        """Say what the guest takes unfinished (``TUN_F_*``); only a back end with ``vnet_hdr`` is asked."""

    def send_parts(self, parts: Sequence[memoryview]) -> bool:
        """Do as :meth:`send` with header and frame as they are in guest memory."""
        data = b"".join(parts)
        return self.send(data[:HEADER], data[HEADER:])

    def send(self, header: bytes, frame: bytes) -> bool:
        """Send a frame.

        Args:
            header: The offload header of 12 bytes, if the back end has ``vnet_hdr``.
            frame: Ethernet frame without checksum.

        Returns:
            Whether it was taken (or dropped for good). If not, ``drained`` of the front end tells when to try again.
        """
        raise NotImplementedError

    def save_fds(self, fds: FdTable) -> None:
        """Name every descriptor that must cross, and forget the names of those that are gone."""
        self._name(fds, 0, self._fd)

    def save_state(self) -> NetdevState:
        """Return what else must cross; changes nothing."""
        framed = [LENGTH.pack(len(frame)) + frame for frame in self._waiting]
        return NetdevState(
            id=self.id,
            kind=self.spec.kind,
            received=b"".join(framed) + bytes(self._input),
            unsent=bytes(self._unsent),
        )

    def load_state(self, state: NetdevState) -> None:
        """Go on as the back end of the program before."""
        self._input += state.received
        self._split()
        self._unsent += state.unsent
        self._rewatch()

    def close(self) -> None:
        """Close everything; at the end of the program, or when it is deleted."""
        self._front = None
        self._hang_up()

    # ------------------------------------------------------------------- for subclasses

    def _receive(self, limit: int) -> None:
        """Read about ``limit`` frames into ``_waiting``."""
        raise NotImplementedError

    def _readable(self) -> None:
        front = self._front
        room = front.room() if front is not None else 0
        if room:
            self._receive(room)
            self._deliver()
        if room:
            self._rewatch()
        else:
            self._watch(readable=False)  # accept_input() goes on

    def _writable(self) -> None:
        """Go on sending; a stream sends the rest of its frame first."""
        self._rewatch()
        if self._front is not None:
            self._front.drained()

    def _deliver(self) -> None:
        """Hand over what waits, a batch at a time."""
        while self._waiting and self._front is not None:
            batch = self._waiting[:BATCH]
            taken = self._front.deliver(batch)
            del self._waiting[:taken]
            if taken < len(batch):
                return

    def _split(self) -> None:
        """Move whole frames from ``_input`` to ``_waiting``."""
        data, start = self._input, 0
        while len(data) - start >= LENGTH.size:
            (length,) = LENGTH.unpack_from(data, start)
            end = start + LENGTH.size + length
            if length > MAX_FRAME:
                log.guest(
                    self.name,
                    f"a frame of {length} bytes, limit {MAX_FRAME}; the connection is closed",
                )
                self._hang_up()
                return
            if end > len(data):
                break
            self._waiting.append(bytes(data[start + LENGTH.size : end]))
            start = end
        del data[:start]

    def _hang_up(self) -> None:
        """Forget the descriptor and what belongs to its other end."""
        self._watch_none()
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._input.clear()
        self._unsent.clear()

    def _wait_writable(self) -> bool:
        """Say that nothing more can be sent now."""
        return bool(self._unsent)

    def _rewatch(self) -> None:
        """Watch for input unless some waits, for output if there is some."""
        self._watch(readable=not self._waiting and self._front is not None)

    def _watch(self, *, readable: bool) -> None:
        fd, writable = self._fd, self._wait_writable()
        wanted = (fd, readable, writable)
        if fd < 0 or wanted == self._watched:
            return
        self._watched = wanted
        self._loop.watch(
            fd,
            readable=self._readable if readable else None,
            writable=self._writable if writable else None,
        )

    def _watch_none(self) -> None:
        if self._fd >= 0:
            self._loop.unwatch(self._fd)
        self._watched = (-1, False, False)

    def _make_nothing(self) -> None:
        """Refuse to make a descriptor in a rehearsal: the program before must have left it."""
        if self.inert:
            raise ConfigError(
                f"netdev {self.id}: the program before has no descriptor of it, so it would be made anew"
            )

    def _name(self, fds: FdTable, index: int, fd: int) -> None:
        fds.delete(self.name, index)
        if fd >= 0:
            fds.resave(self.name, index, fd, kind="netdev", owner=FD_OWNER)
