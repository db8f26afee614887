"""State of the virtio-mmio transport."""

from __future__ import annotations

from instar.cpr.errors import StateInvalidError
from instar.cpr.state import State, state, subs, u
from instar.virtio.features import DRIVER_OK, FEATURES_OK, VERSION_1
from instar.virtio.state import QueueState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MAX_QUEUES: Final = 16


@state("virtio-mmio", version=1)
class VirtioMmioState(State):
    """Registers of one slot and its queues; the device behind it has its own state.

    Source: virtio 1.2, 4.2.
    """

    status: int = u(8, "Device status.")
    interrupts: int = u(2, "Interrupt status: bit 0 used buffers, bit 1 configuration or fault.")
    generation: int = u(32, "Changes of the configuration space.")
    features: int = u(64, "Features that the driver wrote.")
    features_sel: int = u(32, "Which word of the offered features is read.")
    driver_features_sel: int = u(32, "Which word of the driver's features is written.")
    queue_sel: int = u(32, "Which queue the queue registers mean.")
    shm_sel: int = u(32, "Which shared memory region is asked for; there are none.")
    faults: int = u(64, "Rules that the guest broke since the machine started.")
    queues: list[QueueState] = subs(QueueState, "The device's queues.", max=MAX_QUEUES)

    def check(self) -> None:
        """Refuse a driver that is ready without a negotiation."""
        if self.status & DRIVER_OK and not self.status & FEATURES_OK:
            raise StateInvalidError(f"virtio-mmio.status: {self.status:#x} lacks FEATURES_OK")
        if self.status & FEATURES_OK and not self.features & VERSION_1:
            raise StateInvalidError("virtio-mmio.features: VERSION_1 is missing")
