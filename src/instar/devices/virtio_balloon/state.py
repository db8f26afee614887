"""State of virtio-balloon."""

from __future__ import annotations

from instar.cpr.state import State, state, u, us

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

TAGS: Final = 10  # statistics known: virtio 1.2, 5.5.6.4
UNKNOWN: Final = (1 << 64) - 1


@state("virtio-balloon", version=1)
class BalloonState(State):
    """What guest and host agreed on about the guest's memory.

    Source: virtio 1.2, 5.5.
    """

    target: int = u(32, "How much the guest is asked to give back.", unit="4 KiB pages")
    actual: int = u(32, "How much it says it gave back.", unit="4 KiB pages")
    stats: list[int] = us(64, "The guest's statistics by tag; 2**64 - 1: never told.", length=TAGS)
    asked: int = u(64, "How often the guest was asked for statistics since reset.")
