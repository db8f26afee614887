"""A ring between us and a back end, in memory of its own.

The guest's rings are not shown to the back end: chains are taken out of them and offered here by their heads (the
descriptor table is the guest's own), and what comes back goes into the guest's ring after the CPU was told of the
bytes that were written. So no guest can see a buffer that the back end filled while decoded code of it is still
cached, what is in flight is known here whatever becomes of the back end, and a back end's mistakes stay out of the
guest's rings.

Source: own; layout as virtio 1.2, 2.7.
"""

from __future__ import annotations

from instar.vhostuser.protocol import BackendError
from instar.virtio.queue import barrier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

MAX_SIZE: Final = 256
_USED_AT: Final = 4096
BYTES: Final = 8192  # of one ring: a page for what is available, a page for what was used


class Plan:
    """One ring as the driver made it: its number, chains, guest address of its descriptors, heads in flight."""

    __slots__ = ("desc", "heads", "index", "size")

    def __init__(self, index: int, size: int, desc: int, heads: Sequence[int]) -> None:
        self.index = index
        self.size = size
        self.desc = desc
        self.heads = heads


class Ring:
    """One split ring without event indexes; the back end calls for each used buffer.

    Args:
        memory: ``BYTES`` bytes that the back end has mapped, too.

    Attributes:
        size: Chains, a power of 2; set by :meth:`restart`.
        offered: Index of the next available entry.
        taken: Index of the next used entry that was not looked at.
    """

    __slots__ = ("_u16", "_u32", "offered", "size", "taken")

    def __init__(self, memory: memoryview) -> None:
        self._u16 = memory.cast("H")
        self._u32 = memory.cast("I")
        self.size = 0
        self.offered = 0
        self.taken = 0

    def clear(self, size: int) -> None:
        """Begin with an empty ring of ``size`` chains; no back end may be looking."""
        self.size = size
        self.offered = self.taken = 0
        for index in range(len(self._u32)):
            self._u32[index] = 0

    def go_on(self, size: int, offered: int, taken: int) -> None:
        """Go on with a ring that another program left."""
        self.size = size
        self.offered = offered
        self.taken = taken

    def offer(self, head: int) -> None:
        """Make the chain of ``head`` available."""
        self._u16[2 + self.offered % self.size] = head
        barrier()  # the entry before the index that shows it
        self.offered = (self.offered + 1) & 0xFFFF
        self._u16[1] = self.offered

    def take(self) -> tuple[int, int] | None:
        """Return (head, bytes written) of the next used chain, None if there is none.

        Raises:
            BackendError: the used index cannot be true.
        """
        ahead = (self._u16[_USED_AT // 2 + 1] - self.taken) & 0xFFFF
        if not ahead:
            return None
        if ahead > self.size:
            raise BackendError(f"the used index jumped by {ahead}, ring size {self.size}")
        barrier()  # the index before the entry that it shows
        at = _USED_AT // 4 + 1 + 2 * (self.taken % self.size)
        self.taken = (self.taken + 1) & 0xFFFF
        return self._u32[at], self._u32[at + 1]

    def used(self) -> int:
        """Return the checked index up to which chains were used: where another back end goes on.

        Raises:
            BackendError: it cannot be true.
        """
        index = self._u16[_USED_AT // 2 + 1]
        if (self.offered - index) & 0xFFFF > self.size:
            raise BackendError(f"the used index is {index}; {self.offered} were offered")
        return index

    def base(self, reply: int) -> int:
        """Return the checked index at which a back end stopped.

        Raises:
            BackendError: it never had that many chains.
        """
        if (self.offered - reply) & 0xFFFF > self.size or reply > 0xFFFF:
            raise BackendError(
                f"the back end says that it stopped at {reply}; {self.offered} were offered"
            )
        return reply
