"""State of one virtqueue."""

from __future__ import annotations

from instar.cpr.errors import StateInvalidError
from instar.cpr.state import State, flag, state, u, us

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MAX_SIZE: Final = 1024  # descriptors; the specification allows 32768, no driver here wants more


@state("virtqueue", version=1)
class QueueState(State):
    """Where a split ring is and how far the device got.

    Source: virtio 1.2, 2.7.
    """

    size: int = u(32, "Descriptors, as the driver wrote it; checked when the queue is made ready.")
    ready: bool = flag("The driver handed the ring over.")
    desc: int = u(64, "Guest address of the descriptor table.")
    avail: int = u(64, "Guest address of the available ring (driver area).")
    used: int = u(64, "Guest address of the used ring (device area).")
    next_avail: int = u(16, "Index of the first chain that the device did not take.")
    next_used: int = u(16, "Index of the next used element.")
    signalled: int = u(16, "next_used when the driver was last told.")
    in_flight: list[int] = us(16, "Heads of chains taken and not answered.", max=MAX_SIZE)

    def check(self) -> None:
        """Refuse a ready queue of a size that could not have become ready, and wrong heads."""
        if self.ready and (self.size > MAX_SIZE or self.size.bit_count() != 1):
            raise StateInvalidError(
                f"virtqueue.size: {self.size}, a power of 2 up to {MAX_SIZE} is needed"
            )
        heads = self.in_flight
        if len(set(heads)) != len(heads) or any(head >= self.size for head in heads):
            raise StateInvalidError(
                "virtqueue.in_flight: a head is twice there or not in the ring"
            )
