"""What of a vhost-user connection crosses an update: the connection itself is a named descriptor."""

from __future__ import annotations

from instar.cpr.errors import StateInvalidError
from instar.cpr.state import State, blob, flag, state, step, subs, u

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.cpr.state import Record

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


@state("vhost-user", version=2)
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
        since=2,
    )
    heard: bytes = blob(
        "What came of a request of the back end that is not whole.", max=1 << 13, since=2
    )
    news: bool = flag(
        "The back end changed its configuration space and the guest was not told.", since=2
    )

    @step(1, 2)
    @staticmethod
    def _add_requests(old: Record) -> Record:
        return {**old, "inflight": b"", "heard": b"", "news": False}

    @step(2, 1)
    @staticmethod
    def _drop_requests(new: Record) -> Record:
        for name in ("inflight", "heard", "news"):
            if new[name]:
                raise StateInvalidError(f"vhost-user: {name} is in use, which version 1 has not")
        return {n: value for n, value in new.items() if n not in {"inflight", "heard", "news"}}
