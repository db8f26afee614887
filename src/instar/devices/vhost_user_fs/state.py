"""State of vhost-user-fs."""

from __future__ import annotations

from instar.cpr.state import State, state, text


@state("vhost-user-fs", version=1)
class VhostUserFsState(State):
    """What the guest was told; requests under way are listed in the queues' state.

    Source: virtio 1.2, 5.11.
    """

    tag: str = text("Name by which the guest mounts it.", max=36)
