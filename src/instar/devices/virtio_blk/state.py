"""State of virtio-blk."""

from __future__ import annotations

from instar.cpr.state import State, flag, state, u


@state("virtio-blk", version=1)
class BlkState(State):
    """What a guest could tell apart about its disk, besides the bytes on it.

    Requests under way are listed in the queue's state.

    Source: virtio 1.2, 5.2.
    """

    capacity: int = u(64, "What the guest was told, even if the file was resized.", unit="sectors")
    writeback: bool = flag("Writes may stay in the host's cache until a flush.", default=True)
