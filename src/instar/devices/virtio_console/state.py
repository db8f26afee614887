"""State of virtio-console."""

from __future__ import annotations

from instar.cpr.state import State, blob, flag, state, subs, u

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MAX_PORTS: Final = 7  # with the two for control they have 16 queues, what a transport can have
MAX_MESSAGES: Final = 64
MAX_MESSAGE: Final = 8 + 128  # bytes: the header and a name


@state("virtio-console-message", version=1)
class MessageState(State):
    """A message for the guest."""

    data: bytes = blob("Header and what follows it.", max=MAX_MESSAGE)


@state("virtio-console-port", version=1)
class PortState(State):
    """One port, by number; those that the device does not have keep the reset state."""

    guest_open: bool = flag("A program of the guest has it open.")
    ready: bool = flag("The guest's driver knows the port.")
    host_open: bool = flag("The guest was told that the host's end is connected.")
    cols: int = u(16, "Columns of the terminal; 0: not known.")
    rows: int = u(16, "Rows of the terminal; 0: not known.")


@state("virtio-console", version=1)
class ConsoleState(State):
    """What a guest could tell apart about its console device.

    Source: virtio 1.2, 5.3. Queue and feature state belong to the transport.
    """

    ports: list[PortState] = subs(PortState, "Ports by number.", max=MAX_PORTS)
    messages: list[MessageState] = subs(
        MessageState, "For the guest, which has given no buffer for them yet.", max=MAX_MESSAGES
    )
