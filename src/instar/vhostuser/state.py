"""What of a vhost-user connection crosses an update: the connection itself is a named descriptor."""

from __future__ import annotations

from instar.cpr.errors import StateInvalidError
from instar.cpr.state import State, blob, flag, state, subs, u

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MAX_RINGS: Final = 16


@state("vhost-user-ring", version=1)
class RingState(State):
    """Where a ring between us and the back end is.

    Source: own.
    """

    size: int = u(16, "Chains; 0: the ring was never started.")
    offered: int = u(16, "Index of the next available entry.")
    taken: int = u(16, "Index of the next used entry that was not looked at.")
    base: int = u(16, "Where the back end stopped, as it said.")

    def check(self) -> None:
        """Refuse a size that no ring has."""
        if self.size > 256 or self.size.bit_count() > 1:
            raise StateInvalidError(f"vhost-user-ring.size: {self.size}, a power of 2 up to 256")


@state("vhost-user", version=1)
class FrontendState(State):
    """What was agreed on with the back end.

    Source: QEMU docs/interop/vhost-user.
    """

    features: int = u(64, "Virtio features that the back end offers.")
    protocol: int = u(64, "Protocol features agreed on.")
    rings: list[RingState] = subs(RingState, "Rings by index.", max=MAX_RINGS)
    inflight: bytes = blob(
        "Layout of the memory where the back end lists its requests; empty: there is none.",
        max=24,
        optional=True,
    )
    heard: bytes = blob(
        "What came of a request of the back end that is not whole.", max=1 << 13, optional=True
    )
    news: bool = flag(
        "The back end changed its configuration space and the guest was not told.", optional=True
    )
