"""State of virtio-net."""

from __future__ import annotations

from instar.cpr.errors import StateInvalidError
from instar.cpr.state import State, blob, flag, state, step, u

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.cpr.state import Record

ADDRESS: Final = 6  # bytes of an Ethernet address
MAX_ADDRESSES: Final = 64  # of both tables together, as QEMU
MAX_PAIRS: Final = 4  # of queues
VLAN_BYTES: Final = 4096 // 8  # a bit for each VLAN


@state("virtio-net", version=2)
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
    pairs: int = u(8, "Pairs of queues that the driver uses.", since=2, default=1)
    offloads_off: int = u(
        64, "Guest offloads, as feature bits, that the driver negotiated and turned off.", since=2
    )
    vlans: bytes = blob(
        "VLANs that the driver listens to, a bit each from the lowest; empty: none.",
        max=VLAN_BYTES,
        since=2,
    )

    @step(1, 2)
    @staticmethod
    def _add_queues(old: Record) -> Record:
        return {**old, "pairs": 1, "offloads_off": 0, "vlans": b""}

    @step(2, 1)
    @staticmethod
    def _drop_queues(new: Record) -> Record:
        for name, idle in (("pairs", 1), ("offloads_off", 0), ("vlans", b"")):
            if new[name] != idle:
                raise StateInvalidError(f"virtio-net: {name} is in use, which version 1 has not")
        later = {"pairs", "offloads_off", "vlans"}
        return {name: value for name, value in new.items() if name not in later}

    def check(self) -> None:
        """Refuse addresses that are none, tables that are too long, and queues that there cannot be."""
        both = len(self.unicast) + len(self.multicast)
        if len(self.mac) != ADDRESS or len(self.unicast) % ADDRESS or both % ADDRESS:
            raise StateInvalidError("virtio-net: an address has not 6 bytes")
        if both > MAX_ADDRESSES * ADDRESS:
            raise StateInvalidError(
                f"virtio-net: {both // ADDRESS} addresses, limit {MAX_ADDRESSES}"
            )
        if not 1 <= self.pairs <= MAX_PAIRS:
            raise StateInvalidError(f"virtio-net: {self.pairs} pairs of queues, 1 to {MAX_PAIRS}")
        if len(self.vlans) not in {0, VLAN_BYTES}:
            raise StateInvalidError(f"virtio-net: a VLAN table of {len(self.vlans)} bytes")
