"""What crosses an update of the host's side of a socket device, besides the descriptors."""

from __future__ import annotations

from instar.cpr.state import State, blob, state, subs, u

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MAX_LINE: Final = 32  # bytes of "CONNECT <port>\n"
MAX_CLIENTS: Final = 32  # that have not said where to yet


@state("vsock-client", version=1)
class VsockClientState(State):
    """A program of the host that has connected and is not known to the guest yet.

    Source: own.
    """

    ident: int = u(32, "Number of its descriptor.")
    line: bytes = blob("What it has sent of its CONNECT line.", max=MAX_LINE)


@state("vsock-host", version=1)
class VsockHostState(State):
    """The listening socket and who waits there.

    Source: own.
    """

    path_device: int = u(64, "Device number of the socket file.")
    path_inode: int = u(64, "Inode number of the socket file.")
    clients: list[VsockClientState] = subs(
        VsockClientState, "In the order of connecting.", max=MAX_CLIENTS
    )
