"""State of virtio-vsock: the connections, byte for byte."""

from __future__ import annotations

from instar.cpr.errors import StateInvalidError
from instar.cpr.state import State, blob, flag, state, subs, u, us

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MAX_CONNECTIONS: Final = 128
MAX_RESETS: Final = 512  # resets owed to the guest
BUFFER: Final = 64 * 1024  # bytes the guest may send ahead of the host's reader, each connection

REQUESTED, ESTABLISHED = 0, 1  # stage
OWE_REQUEST, OWE_RESPONSE, OWE_CREDIT, OWE_SHUTDOWN = 1, 2, 4, 8  # owed
NO_RECEIVE, NO_SEND = 1, 2  # guest_shut, as in a SHUTDOWN packet's flags


@state("virtio-vsock-connection", version=1)
class VsockConnectionState(State):
    """One connection between a port of the guest and a unix socket of the host.

    Source: virtio 1.2, 5.10.6.
    """

    ident: int = u(32, "Number of the host's descriptor.")
    host_port: int = u(32, "Port on the host's side.")
    guest_port: int = u(32, "Port on the guest's side.")
    stage: int = u(8, "0: the guest was asked and has not answered; 1: established.")
    owed: int = u(8, "Packets owed to the guest: 1 request, 2 response, 4 credit, 8 shutdown.")
    peer_buffer: int = u(32, "The guest's receive buffer, as it last said.", unit="bytes")
    peer_forwarded: int = u(32, "Bytes that left that buffer, as it last said; wraps.")
    sent: int = u(32, "Bytes sent to the guest; wraps.")
    forwarded: int = u(32, "Bytes of the guest's that the host has taken; wraps.")
    told: int = u(32, "What the guest was last told of that; wraps.")
    unsent: bytes = blob("Bytes of the guest's that the host has not taken yet.", max=BUFFER)
    guest_shut: int = u(8, "The guest will not: 1 receive, 2 send any more.")
    ended: bool = flag("The host's peer will not send any more, and all it sent was passed on.")
    deaf: bool = flag("The host's peer takes no more: what the guest sends is dropped.")
    shut_down: bool = flag("The host's peer was told that the guest will not send any more.")

    def check(self) -> None:
        """Refuse a stage and flags that do not exist."""
        if self.stage > ESTABLISHED or self.owed > 15 or self.guest_shut > 3:
            raise StateInvalidError(
                f"virtio-vsock-connection: stage {self.stage}, owed {self.owed} or "
                f"guest_shut {self.guest_shut} does not exist"
            )


@state("virtio-vsock", version=1)
class VsockState(State):
    """What a guest could tell apart about its socket device.

    Source: virtio 1.2, 5.10.
    """

    connections: list[VsockConnectionState] = subs(
        VsockConnectionState, "In the order of their making.", max=MAX_CONNECTIONS
    )
    resets: list[int] = us(
        64,
        "Resets owed to the guest: the host's port << 32 | the guest's port.",
        max=MAX_RESETS,
    )
    next_port: int = u(32, "Port of the host's side to try next.", default=1 << 30)
    transport_reset: bool = flag("The guest is to be told that all its connections are gone.")

    def check(self) -> None:
        """Refuse two connections between the same ports or with the same descriptor."""
        found = self.connections
        ports = {(c.host_port, c.guest_port) for c in found}
        if len(ports) != len(found) or len({c.ident for c in found}) != len(found):
            raise StateInvalidError("virtio-vsock.connections: one is there twice")
