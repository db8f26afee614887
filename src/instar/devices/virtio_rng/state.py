"""State of virtio-rng."""

from __future__ import annotations

from instar.cpr.state import State, flag, state, u


@state("virtio-rng", version=1)
class RngState(State):
    """What a guest could tell apart about its entropy device.

    Source: virtio 1.2, 5.4. Queue and feature state belong to the transport.
    """

    served: int = u(64, "Bytes given to the guest since reset.", unit="bytes")
    waiting: bool = flag("Chains wait in the ring until the source has bytes again.")
