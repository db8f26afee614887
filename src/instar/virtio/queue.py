"""A split virtqueue as a device sees it; everything in it was written by a guest nobody trusts.

A chain leaves the ring only when it is answered (:meth:`Queue.complete`) or listed as in flight
(:meth:`Queue.take`), so stopping between any two lines loses nothing.

Source: virtio 1.2, 2.7.
"""

from __future__ import annotations

from _thread import allocate_lock
from struct import Struct

from instar.errors import InternalBugError, QueueError
from instar.virtio.chain import Chain
from instar.virtio.features import EVENT_IDX, INDIRECT_DESC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Final

    from instar.memory import GuestMemory
    from instar.virtio.state import QueueState

_NEXT, _WRITE, _INDIRECT = 1, 2, 4
_NO_INTERRUPT: Final = 1
_DESC: Final = Struct("<QIHH")
_USED_ELEMENT: Final = Struct("<II")

_barrier_lock: Final = allocate_lock()


def barrier() -> None:
    """Order all memory accesses before it against all after it, as other cores see them.

    The guest may run while a completion is delivered. A lock's acquire is a locked instruction on x86; elsewhere a
    release followed by an acquire of the same lock orders both ways.
    """
    with _barrier_lock:
        pass
    with _barrier_lock:
        pass


class Queue:
    """One virtqueue.

    Args:
        name: As in the device's ``queues``.
        memory: Guest RAM.
        state: Its state, shared with the transport.
        limit: Largest size offered to the driver, a power of 2.
        interrupt: Tells the driver that there are used buffers.
    """

    __slots__ = ("features", "interrupt", "limit", "memory", "name", "state")

    def __init__(
        self,
        name: str,
        memory: GuestMemory,
        state: QueueState,
        limit: int,
        interrupt: Callable[[], object],
    ) -> None:
        self.name = name
        self.memory = memory
        self.state = state
        self.limit = limit
        self.interrupt = interrupt
        self.features = 0  # derived: what was negotiated, given by the transport

    def enable(self) -> None:
        """Take the ring over from the driver.

        Raises:
            QueueError: size or alignment is not allowed; the queue stays off.
            GuestMemoryError: a part of it is not in RAM; the queue stays off.
        """
        state = self.state
        size = state.size
        if size > self.limit or size.bit_count() != 1:
            raise QueueError(
                f"queue {self.name}: size {size}, a power of 2 up to {self.limit} is needed"
            )
        parts = (
            (state.desc, 16 * size, 16),
            (state.avail, 6 + 2 * size, 2),
            (state.used, 6 + 8 * size, 4),
        )
        for gpa, length, alignment in parts:
            if gpa % alignment:
                raise QueueError(f"queue {self.name}: {gpa:#x} is not aligned to {alignment}")
            self.memory.view(gpa, length)
        state.next_avail = state.next_used = state.signalled = 0
        state.in_flight = []
        state.ready = True

    def disable(self) -> None:
        """Forget the ring; nothing may be in flight on the host any more."""
        self.state.ready = False
        self.state.in_flight = []

    def peek(self) -> Iterator[Chain]:
        """Yield chains in ring order, at most a ring full; one neither taken nor completed ends it.

        Raises:
            QueueError, GuestMemoryError: the ring or a chain is not as it has to be; it stays in the ring.
        """
        state = self.state
        for _ in range(state.size):  # a guest that adds for ever does not hold the lock for ever
            position = state.next_avail
            if not state.ready or not self._available():
                return
            head = self.memory.u16(state.avail + 4 + 2 * (position % state.size))
            if head in state.in_flight:
                raise QueueError(f"queue {self.name}: chain {head} is there twice")
            yield self._parse(head)
            if state.next_avail == position:
                return

    def pending(self) -> bool:
        """Return whether :meth:`peek` would yield."""
        return self.state.ready and self._available() > 0

    def take(self, chain: Chain) -> None:
        """Take the chain that was just peeked out of the ring; it is in flight until completed."""
        state = self.state
        state.in_flight.append(chain.head)
        state.next_avail = (state.next_avail + 1) & 0xFFFF

    def put_back(self, chains: Sequence[Chain]) -> None:
        """Undo :meth:`take` of the last ones taken: they are in the ring again, in their order."""
        state = self.state
        for chain in chains:
            state.in_flight.remove(chain.head)
        state.next_avail = (state.next_avail - len(chains)) & 0xFFFF

    def in_flight(self) -> list[Chain]:
        """Return the chains taken and not answered, read again from guest memory (after a load).

        Raises:
            QueueError, GuestMemoryError: the guest changed one meanwhile.
        """
        return [self._parse(head) for head in self.state.in_flight]

    def complete(self, chain: Chain, used: int) -> None:
        """Answer a chain that was taken, or the one just peeked; then :meth:`notify` tells the driver.

        Args:
            chain: Is the driver's again.
            used: Bytes written into its room, from the start.
        """
        state = self.state
        if chain.answered:
            raise InternalBugError(f"queue {self.name}: chain {chain.head} answered twice")
        chain.answered = True
        if not state.ready:
            return
        if chain.head in state.in_flight:
            state.in_flight.remove(chain.head)
        else:
            state.next_avail = (state.next_avail + 1) & 0xFFFF
        element = state.used + 4 + 8 * (state.next_used % state.size)
        self.memory.write(element, _USED_ELEMENT.pack(chain.head, used))
        barrier()  # the element before the index that shows it (2.7.8.2)
        state.next_used = (state.next_used + 1) & 0xFFFF
        self.memory.put_u16(state.used + 2, state.next_used)

    def notify(self) -> None:
        """Interrupt the driver if there is news and it wants to know (2.7.7, 2.7.10)."""
        state = self.state
        if not state.ready or state.next_used == state.signalled:
            return
        barrier()  # the index before what the driver says about interrupts
        new = (state.next_used - state.signalled) & 0xFFFF
        if self.features & EVENT_IDX:
            event = self.memory.u16(state.avail + 4 + 2 * state.size)
            wanted = (state.next_used - event - 1) & 0xFFFF < new
        else:
            wanted = not self.memory.u16(state.avail) & _NO_INTERRUPT
        state.signalled = state.next_used
        if wanted:
            self.interrupt()

    def _available(self) -> int:
        """Return how many chains are in the ring; when there are none, ask for a kick at the next."""
        count = self._count()
        if count == 0 and self.features & EVENT_IDX:
            state = self.state
            self.memory.put_u16(state.used + 4 + 8 * state.size, state.next_avail)
            barrier()  # asked before looking again, or a chain added between would wait for ever
            count = self._count()
        return count

    def _count(self) -> int:
        state = self.state
        index = self.memory.u16(state.avail + 2)
        count = (index - state.next_avail) & 0xFFFF
        if count > state.size:
            raise QueueError(
                f"queue {self.name}: available index jumped by {count}, queue size {state.size}"
            )
        if count:
            barrier()  # the index before the ring it shows
        return count

    def _parse(self, head: int) -> Chain:
        chain = Chain(self.memory, head)
        table, limit, index = self.state.desc, self.state.size, head
        left, indirect = limit, b""
        while True:
            if index >= limit or left == 0:
                raise QueueError(
                    f"queue {self.name}: chain {head} goes to descriptor {index} of {limit} or loops"
                )
            gpa, length, flags, following = _DESC.unpack_from(
                indirect or self.memory.read(table + 16 * index, 16), 16 * index if indirect else 0
            )
            left -= 1
            if flags & _INDIRECT:
                self._check_indirect(length, flags, nested=bool(indirect))
                indirect = self.memory.read(gpa, length)
                limit, index, left = length // 16, 0, length // 16
                continue
            chain.add(gpa, length, device_writes=bool(flags & _WRITE))
            if not flags & _NEXT:
                return chain
            index = following

    def _check_indirect(self, length: int, flags: int, *, nested: bool) -> None:
        """Refuse what 2.7.5.3.1 forbids the driver."""
        why = ""
        if not self.features & INDIRECT_DESC:
            why = "was not negotiated"
        elif nested:
            why = "is inside another"
        elif flags & _NEXT:
            why = "is not the last of its chain"
        elif length % 16 or not 16 <= length <= 16 * self.limit:
            why = f"has {length} bytes, a multiple of 16 up to {16 * self.limit} is needed"
        if why:
            raise QueueError(f"queue {self.name}: indirect table {why}")
