# ruff: noqa: PYI021 - the implementation is compiled: this is where its interface is read
"""Split virtqueues and their chains, compiled from ``compiled/queue.py``.

Source: virtio 1.2, 2.7.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

from typing_extensions import Buffer

from instar.memory import GuestMemory
from instar.virtio.state import QueueState

Segment: TypeAlias = tuple[int, memoryview]

MAX_BYTES: Final[int]
"""The longest chain, bytes."""

def barrier() -> None:
    """Order all memory accesses before it against all after it, as other cores see them.

    The guest may run while a completion is delivered.
    """

class Chain:
    """One request of the guest, a descriptor chain, checked: every byte of it is in RAM.

    The guest can still change the bytes while the device works, so a device reads a header once.
    """

    @property
    def head(self) -> int:
        """Return the number of its first descriptor."""
    @property
    def size(self) -> int:
        """Return how many bytes the guest wrote for the device."""
    @property
    def room(self) -> int:
        """Return how many bytes the device may write."""
    answered: bool
    """It went back to the guest."""

    @property
    def readable(self) -> list[Segment]:
        """Return guest address and memory of each stretch that the guest wrote."""
    @property
    def writable(self) -> list[Segment]:
        """Return guest address and memory of each stretch of the room."""
    def read(self, offset: int, length: int) -> bytes:
        """Return a copy of what the guest wrote at ``offset``.

        Raises:
            QueueError: the guest wrote less.
        """
    def sources(self, offset: int, length: int) -> list[memoryview]:
        """Return guest memory to read from, without a copy; QueueError if the guest wrote less."""
    def targets(self, offset: int, length: int) -> list[memoryview]:
        """Return guest memory to write to, without a copy; afterwards call :meth:`filled`."""
    def filled(self, offset: int, length: int) -> None:
        """Tell the CPU that ``length`` bytes from ``offset`` of the room were written."""
    def write(self, data: Buffer, offset: int = 0) -> None:
        """Copy ``data`` into the room at ``offset``."""

class Queue:
    """One virtqueue.

    Args:
        name: As in the device's ``queues``.
        memory: Guest RAM; all of it is there already.
        state: Its state, shared with the transport.
        limit: Largest size offered to the driver, a power of 2.
        interrupt: Tells the driver that there are used buffers.
    """

    features: int
    """What was negotiated, given by the transport."""

    def __init__(
        self,
        name: str,
        memory: GuestMemory,
        state: QueueState,
        limit: int,
        interrupt: Callable[[], object],
    ) -> None: ...
    @property
    def name(self) -> str:
        """Return the name."""
    @property
    def memory(self) -> GuestMemory:
        """Return guest RAM."""
    @property
    def state(self) -> QueueState:
        """Return the state."""
    @property
    def limit(self) -> int:
        """Return the largest size."""
    def enable(self) -> None:
        """Take the ring over from the driver.

        Raises:
            QueueError: size or alignment is not allowed; the queue stays off.
            GuestMemoryError: a part of it is not in RAM; the queue stays off.
        """
    def disable(self) -> None:
        """Forget the ring; nothing may be in flight on the host any more."""
    def peek(self) -> Iterator[Chain]:
        """Yield chains in ring order, at most a ring full; one neither taken nor completed ends it.

        Raises:
            QueueError, GuestMemoryError: the ring or a chain is not as it has to be; it stays in the ring.
        """
    def pending(self) -> bool:
        """Return whether :meth:`peek` would yield; if not, the driver kicks at the next chain."""
    def take(self, chain: Chain) -> None:
        """Take the chain that was just peeked out of the ring; it is in flight until completed."""
    def put_back(self, chains: Sequence[Chain]) -> None:
        """Undo :meth:`take` of the last ones taken: they are in the ring again, in their order."""
    def in_flight(self) -> list[Chain]:
        """Return the chains taken and not answered, read again from guest memory (after a load).

        Raises:
            QueueError, GuestMemoryError: the guest changed one meanwhile.
        """
    def complete(self, chain: Chain, used: int) -> None:
        """Answer a chain that was taken, or the one just peeked; then :meth:`notify` tells the driver.

        Args:
            chain: Is the driver's again.
            used: Bytes written into its room, from the start.
        """
    def complete_together(self, chains: Sequence[Chain], used: Sequence[int]) -> None:
        """Do as :meth:`complete` with several chains that were taken; a driver that looks sees none of them or all."""
    def notify(self) -> None:
        """Interrupt the driver if there is news and it wants to know (2.7.7, 2.7.10)."""
