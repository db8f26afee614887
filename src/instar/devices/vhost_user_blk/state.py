"""State of vhost-user-blk."""

from __future__ import annotations

from instar.cpr.state import State, blob, state


@state("vhost-user-blk", version=1)
class VhostUserBlkState(State):
    """What the guest was told about its disk; requests under way are listed in the queue's state.

    Source: virtio 1.2, 5.2; QEMU docs/interop/vhost-user.
    """

    config: bytes = blob("Configuration space, as the back end told it.", max=256)
