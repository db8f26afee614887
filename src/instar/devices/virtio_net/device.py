"""virtio-net: a network card over a line to a back end.

Frames move in the main loop in batches, with the machine lock held: a chain of the guest leaves its ring only when its
frame was taken, and a frame that comes waits at the host until the guest has room for it.

Source: virtio 1.2, 5.1 (device 1).
"""

from __future__ import annotations

from struct import Struct

from instar import log
from instar.devices.virtio_net import filter as rx_filter
from instar.devices.virtio_net.state import NetState
from instar.errors import QueueError
from instar.virtio.device import VirtioDevice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import ClassVar, Final, Protocol

    from instar.cpr.state import State
    from instar.virtio.queue import Chain, Queue

    class Line(Protocol):
        """The way to a back end (``instar.machine.network.NetLine``)."""

        @property
        def vnet_hdr(self) -> bool:
            """Whether the other end takes and gives frames that are not finished."""
            ...

        def attach(self, card: VirtioNet, /) -> None:
            """Connect the card."""
            ...

        def wake_transmit(self) -> None:
            """Have :meth:`VirtioNet.transmit` called in the main loop; from any thread."""
            ...

        def wake_receive(self) -> None:
            """Say that the guest has room again; from any thread."""
            ...

        def send(self, header: bytes, frame: bytes, /) -> bool:
            """Send a frame; False: later."""
            ...

        def set_offload(self, flags: int, /) -> None:
            """Say what the guest takes unfinished."""
            ...


F_CSUM: Final = 1 << 0
F_GUEST_CSUM: Final = 1 << 1
F_MAC: Final = 1 << 5
F_GUEST_TSO4, F_GUEST_TSO6, F_GUEST_ECN = 1 << 7, 1 << 8, 1 << 9
F_HOST_TSO4, F_HOST_TSO6, F_HOST_ECN = 1 << 11, 1 << 12, 1 << 13
F_MRG_RXBUF: Final = 1 << 15
F_STATUS: Final = 1 << 16
F_CTRL_VQ: Final = 1 << 17
F_CTRL_RX: Final = 1 << 18
F_CTRL_RX_EXTRA: Final = 1 << 20
F_CTRL_MAC_ADDR: Final = 1 << 23
_ALWAYS: Final = (
    F_MAC | F_STATUS | F_MRG_RXBUF | F_CTRL_VQ | F_CTRL_RX | F_CTRL_RX_EXTRA | F_CTRL_MAC_ADDR
)
_OFFLOADS: Final = (
    F_CSUM | F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_ECN | F_HOST_TSO4 | F_HOST_TSO6 | F_HOST_ECN
)  # fmt: skip
# Feature to TUN_F_* (linux/if_tun.h).
_TUN_FLAGS: Final = ((F_GUEST_CSUM, 1), (F_GUEST_TSO4, 2), (F_GUEST_TSO6, 4), (F_GUEST_ECN, 8))

BATCH: Final = 64  # frames under one lock
MAX_FRAME: Final = 4096 + 65536  # bytes; what a guest sends beyond is dropped
MAX_COMMAND: Final = 4096  # bytes on the control queue; two full tables have less than 400
HEADER: Final = 12  # bytes of struct virtio_net_hdr, with num_buffers
_BUFFERS_AT: Final = 10
_NO_OFFLOAD: Final = bytes(_BUFFERS_AT)
_CONFIG: Final = Struct("<6sHH")  # mac, status, max_virtqueue_pairs
_LINK_UP: Final = 1
_BUFFERS: Final = Struct("<H")


class VirtioNet(VirtioDevice):
    """Carry frames between a guest and a line.

    Args:
        line: The way to the back end.
        mac: Address of the card, 6 bytes.
        state_id: Unique name of its state.

    Attributes:
        dropped: Frames for the guest that were not delivered: no link, not for it, or longer than its buffers.
    """

    __slots__ = ("_receive_queue", "_transmit_queue", "dropped", "line", "mac", "state")
    state_class: ClassVar[type[State]] = NetState
    device_id = 1
    queues: ClassVar[tuple[str, ...]] = ("receive", "transmit", "control")

    def __init__(self, line: Line, *, mac: bytes, state_id: str) -> None:
        super().__init__(state_id)
        self.line = line
        self.mac = mac
        self.state = NetState(mac=mac)
        self.dropped = 0
        self._receive_queue: Queue | None = None  # derived: known once the driver filled it
        self._transmit_queue: Queue | None = None
        line.attach(self)

    # ------------------------------------------------------------------- life

    def reset(self) -> None:
        """Bring the reset state; the cable stays as it is."""
        self.state = NetState(mac=self.mac, link=self.state.link)
        self._receive_queue = self._transmit_queue = None

    def resume(self, queue: Queue) -> None:
        """Go on sending and receiving after a load."""
        if queue.name == "receive":
            self.on_receive(queue)
        elif queue.name == "transmit":
            self.on_transmit(queue)

    def save_state(self) -> NetState:
        """Return the live state."""
        return self.state

    def load_state(self, state: NetState) -> None:
        """Go on from ``state``."""
        self.state = state
        self._receive_queue = self._transmit_queue = None

    # ------------------------------------------------------------------- configuration

    def offered(self) -> int:
        """Return the features; unfinished frames only if the other end takes them."""
        return _ALWAYS | (_OFFLOADS if self.line.vnet_hdr else 0)

    def config(self) -> bytes:
        """Return the configuration space (5.1.4)."""
        return _CONFIG.pack(self.state.mac, _LINK_UP if self.state.link else 0, 1)

    def set_link(self, *, up: bool) -> None:
        """Plug or pull the cable (``set_link``)."""
        if self.state.link != up:
            self.state.link = up
            self.port.config_changed()
            self.line.wake_receive()

    # ------------------------------------------------------------------- to the line

    def on_transmit(self, queue: Queue) -> None:
        """Have the frames sent in the main loop."""
        self._transmit_queue = queue
        self.line.wake_transmit()

    def transmit(self) -> bool:
        """Send a batch; return whether there is more to do at once (main loop, lock held)."""
        queue = self._transmit_queue
        if queue is None:
            return False
        again: list[bool] = []
        self.port.run(lambda queue: again.append(self._send_batch(queue)), queue)
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
                self.state_id,
                f"frame of {chain.size - HEADER} bytes, limit {MAX_FRAME}; it is dropped",
            )
            return True
        if not self.state.link:
            return True
        data = chain.read(0, chain.size)
        return self.line.send(data[:HEADER], data[HEADER:])

    # ------------------------------------------------------------------- from the line

    def on_receive(self, queue: Queue) -> None:
        """Tell the line that there is room."""
        self._receive_queue = queue
        self.line.set_offload(self._wanted_offload())
        self.line.wake_receive()

    def room(self) -> int:
        """Return how many frames to read (main loop, lock held)."""
        queue = self._receive_queue
        found: list[bool] = []
        if queue is not None:
            self.port.run(lambda queue: found.append(queue.pending()), queue)
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

        if queue is not None:
            self.port.run(fill, queue)
        return len(taken)

    def _receive(self, queue: Queue, frame: bytes) -> bool:
        """Put one frame into the ring; return False if there is no room for it now."""
        header = _NO_OFFLOAD
        if self.line.vnet_hdr:
            header, frame = frame[:_BUFFERS_AT], frame[HEADER:]
        if not self.state.link or not frame or not rx_filter.accepts(self.state, frame):
            self.dropped += 1
            return True
        size = HEADER + len(frame)
        chains = self._collect(queue, size)
        if chains is None:
            return False
        if sum(chain.room for chain in chains) < size:  # not mergeable, and too small
            queue.put_back(chains)
            self.dropped += 1
            return True
        data = header + _BUFFERS.pack(len(chains)) + frame
        done = 0
        for chain in chains:
            part = data[done : done + chain.room]
            chain.write(part)
            queue.complete(chain, len(part))
            done += len(part)
        return True

    def _collect(self, queue: Queue, size: int) -> list[Chain] | None:
        """Take chains for ``size`` bytes: one, or with mergeable buffers as many as needed; None if they are too few.

        Raises:
            QueueError: a buffer has no room for the header, or the ring is broken; nothing was taken.
        """
        mergeable = bool(self.port.features & F_MRG_RXBUF)
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

    def _wanted_offload(self) -> int:
        features = self.port.features
        return sum(flag for feature, flag in _TUN_FLAGS if features & feature)

    # ------------------------------------------------------------------- control

    def on_control(self, queue: Queue) -> None:
        """Do what the driver asks (5.1.6.5)."""
        for chain in queue.peek():
            if chain.room < 1:
                raise QueueError(f"command {chain.head} has no room for its answer")
            data = chain.read(0, min(chain.size, MAX_COMMAND))
            known = len(data) >= 2 and chain.size <= MAX_COMMAND
            done = known and rx_filter.command(self.state, data[0], data[1], data[2:])
            chain.write(b"\0" if done else b"\1")
            queue.complete(chain, 1)
