"""State of virtio-net."""

from __future__ import annotations

from instar.cpr.errors import StateInvalidError
from instar.cpr.state import State, blob, flag, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

ADDRESS: Final = 6  # bytes of an Ethernet address
MAX_ADDRESSES: Final = 64  # of both tables together, as QEMU


@state("virtio-net", version=1)
class NetState(State):
    """What a guest could tell apart about its network card, besides the frames.

    Frames wait with the back end; what the guest has not been rid of stays in its ring.

    Source: virtio 1.2, 5.1.
    """

    mac: bytes = blob("The card's address, which the driver may change.", max=ADDRESS)
    link: bool = flag("The cable is plugged in.", default=True)
    promiscuous: bool = flag("Every frame is for the guest.", default=True)
    all_multicast: bool = flag("Every multicast frame is.")
    all_unicast: bool = flag("Every unicast frame is.")
    no_multicast: bool = flag("No multicast frame is.")
    no_unicast: bool = flag("No unicast frame is.")
    no_broadcast: bool = flag("No broadcast frame is.")
    unicast: bytes = blob("More addresses of the card, one after the other.", max=384)
    multicast: bytes = blob("Multicast addresses that it listens to.", max=384)
    unicast_overflow: bool = flag("There were too many unicast addresses: all are let in.")
    multicast_overflow: bool = flag("There were too many multicast addresses: all are let in.")

    def check(self) -> None:
        """Refuse addresses that are none, and tables that are too long."""
        both = len(self.unicast) + len(self.multicast)
        if len(self.mac) != ADDRESS or len(self.unicast) % ADDRESS or both % ADDRESS:
            raise StateInvalidError("virtio-net: an address has not 6 bytes")
        if both > MAX_ADDRESSES * ADDRESS:
            raise StateInvalidError(
                f"virtio-net: {both // ADDRESS} addresses, limit {MAX_ADDRESSES}"
            )
