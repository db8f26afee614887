"""A receive and a transmit queue of a network card, with a line to the back end of their own.

Frames move in the main loop in batches, with the machine lock held: a chain of the guest leaves its ring only when its
frame was taken, and a frame that comes waits at the host until the guest has room for it.
"""

from __future__ import annotations

from struct import Struct

from instar import log
from instar.devices.virtio_net import filter as rx_filter
from instar.errors import QueueError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, Protocol

    from instar.devices.virtio_net.device import VirtioNet
    from instar.virtio.queue import Chain, Queue

    class Line(Protocol):
        """The way to a back end (``instar.machine.network.NetLine``)."""

        @property
        def vnet_hdr(self) -> bool:
            """Whether the other end takes and gives frames that are not finished."""
            ...

        def attach(self, card: Pair, /) -> None:
            """Connect the pair."""
            ...

        def wake_transmit(self) -> None:
            """Have :meth:`Pair.transmit` called in the main loop; from any thread."""
            ...

        def wake_receive(self) -> None:
            """Say that the guest has room again; from any thread."""
            ...

        def send(self, parts: Sequence[memoryview], /) -> bool:
            """Send a frame behind its header of 12 bytes; False: later."""
            ...

        def set_offload(self, flags: int, /) -> None:
            """Say what the guest takes unfinished."""
            ...

        def use(self, *, active: bool) -> None:
            """Say whether the guest uses this pair; :meth:`wake_receive` follows."""
            ...


BATCH: Final = 64  # frames under one lock
MAX_FRAME: Final = 4096 + 65536  # bytes; what a guest sends beyond is dropped
HEADER: Final = 12  # bytes of struct virtio_net_hdr, with num_buffers
_BUFFERS_AT: Final = 10
_ADDRESSED: Final = (
    18  # bytes of a frame that say whose it is: both addresses and the tag of a VLAN
)
_NO_OFFLOAD: Final = bytes(_BUFFERS_AT)
_BUFFERS: Final = Struct("<H")


class Pair:
    """Carry frames between two rings of a guest and a line.

    Args:
        card: Whose it is.
        index: Which of the card's.
        line: The way to the back end.
    """

    __slots__ = ("_card", "_index", "_receive_queue", "_transmit_queue", "line")

    def __init__(self, card: VirtioNet, index: int, line: Line) -> None:
        self._card = card
        self._index = index
        self.line = line
        self._receive_queue: Queue | None = None  # derived: known once the driver filled it
        self._transmit_queue: Queue | None = None
        line.attach(self)

    @property
    def active(self) -> bool:
        """Whether the driver uses it; until then its chains wait, and no frame comes for it."""
        return self._index < self._card.state.pairs

    def forget(self) -> None:
        """Forget the rings; after a reset or before a load."""
        self._receive_queue = self._transmit_queue = None
        self.line.use(active=self.active)
        self.line.wake_receive()

    def change_use(self) -> None:
        """Look whether the driver uses it now, and go on with what waited."""
        self.line.use(active=self.active)
        self.line.wake_receive()
        self.line.wake_transmit()

    # ------------------------------------------------------------------- to the line

    def on_transmit(self, queue: Queue) -> None:
        """Have the frames sent in the main loop."""
        self._transmit_queue = queue
        self.line.wake_transmit()

    def transmit(self) -> bool:
        """Send a batch; return whether there is more to do at once (main loop, lock held)."""
        queue = self._transmit_queue
        if queue is None or not self.active:
            return False
        again: list[bool] = []
        self._card.port.run(lambda queue: again.append(self._send_batch(queue)), queue)
        return any(again)

    def _send_batch(self, queue: Queue) -> bool:
        for count, chain in enumerate(queue.peek(), 1):
            if not self._send(chain):
                return False  # the line wakes us
            queue.complete(chain, 0)
            if count == BATCH:
                return queue.pending()
        return False

    def _send(self, chain: Chain) -> bool:
        if chain.size < HEADER:
            raise QueueError(f"frame in chain {chain.head} has no header of {HEADER} bytes")
        if chain.size > HEADER + MAX_FRAME:
            log.guest(
                self._card.state_id,
                f"frame of {chain.size - HEADER} bytes, limit {MAX_FRAME}; it is dropped",
            )
            return True
        if not self._card.state.link:
            return True
        return self.line.send(chain.sources(0, chain.size))

    # ------------------------------------------------------------------- from the line

    def on_receive(self, queue: Queue) -> None:
        """Tell the line that there is room."""
        self._receive_queue = queue
        if self._index == 0:  # the interface has one set of offloads
            self.line.set_offload(self._card.tun_offloads())
        self.line.wake_receive()

    def room(self) -> int:
        """Return how many frames to read (main loop, lock held)."""
        queue = self._receive_queue
        found: list[bool] = []
        if queue is not None and self.active:
            self._card.port.run(lambda queue: found.append(queue.pending()), queue)
        return BATCH if any(found) else 0

    def receive(self, frames: Sequence[bytes]) -> int:
        """Hand frames to the guest; return how many it took (main loop, lock held)."""
        queue = self._receive_queue
        taken: list[bytes] = []

        def fill(queue: Queue) -> None:
            for frame in frames:
                if not self._receive(queue, frame):
                    return
                taken.append(frame)

        if queue is not None and self.active:
            self._card.port.run(fill, queue)
        return len(taken)

    def _receive(self, queue: Queue, frame: bytes) -> bool:
        """Put one frame into the ring; return False if there is no room for it now."""
        offload = self.line.vnet_hdr
        start = HEADER if offload else 0
        size = HEADER + len(frame) - start
        card = self._card
        wanted = rx_filter.accepts(
            card.state, frame[start : start + _ADDRESSED], by_vlan=card.filters_vlans
        )
        if not card.state.link or size <= HEADER or not wanted:
            card.dropped += 1
            return True
        chains = self._collect(queue, size)
        if chains is None:
            return False
        if sum(chain.room for chain in chains) < size:  # not mergeable, and too small
            queue.put_back(chains)
            card.dropped += 1
            return True
        header = frame[:_BUFFERS_AT] if offload else _NO_OFFLOAD
        chains[0].write(header + _BUFFERS.pack(len(chains)))
        rest, offset = memoryview(frame)[start:], HEADER
        used: list[int] = []
        for chain in chains:
            part = rest[: chain.room - offset]
            chain.write(part, offset)
            used.append(offset + len(part))
            rest, offset = rest[len(part) :], 0
        queue.complete_together(chains, used)  # a driver that polls drops half a frame
        return True

    def _collect(self, queue: Queue, size: int) -> list[Chain] | None:
        """Take chains for ``size`` bytes: one, or with mergeable buffers as many as needed; None if they are too few.

        Raises:
            QueueError: a buffer has no room for the header, or the ring is broken; nothing was taken.
        """
        mergeable = self._card.mergeable
        chains: list[Chain] = []
        room = 0
        try:
            for chain in queue.peek():
                if chain.room < HEADER:
                    raise QueueError(f"receive buffer {chain.head} has {chain.room} bytes of room")
                queue.take(chain)
                chains.append(chain)
                room += chain.room
                if room >= size or not mergeable:
                    return chains
        except BaseException:
            queue.put_back(chains)
            raise
        queue.put_back(chains)
        return None
