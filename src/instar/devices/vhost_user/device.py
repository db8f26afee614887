"""A virtio device whose rings another program serves.

Chains are taken out of the guest's rings and offered to the back end over rings of our own (see
``instar.vhostuser.ring``); the used ones come back here, are told to the CPU and given to the guest.
"""

from __future__ import annotations

from instar.vhostuser import Plan
from instar.virtio import features as f
from instar.virtio.device import VirtioDevice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

    from instar.vhostuser import Frontend
    from instar.virtio.queue import Chain, Queue

_TYPE_BITS: Final = (
    1 << 24
) - 1  # feature bits 0 to 23 belong to the device type (virtio 1.2, 2.2)
_OURS: Final = f.EVENT_IDX | f.RING_RESET  # between the guest and us; the back end has other rings


class VhostUserDevice(VirtioDevice):
    """Base of the devices over vhost-user.

    Args:
        frontend: The back end and the rings to it.
        state_id: Unique name of its state.
    """

    __slots__ = ("_pending", "_queues", "frontend")

    def __init__(self, frontend: Frontend, state_id: str) -> None:
        super().__init__(state_id)
        self.frontend = frontend
        self._queues: list[Queue] = []
        self._pending: list[dict[int, Chain]] = [{} for _ in self.queues]
        frontend.attach(self._serve, self._on_gone, self.changed)

    def withheld(self) -> int:
        """Return what the back end cannot have: rings are stopped together; indirect chains if it says so."""
        lacks = 0 if self.frontend.features & f.INDIRECT_DESC else f.INDIRECT_DESC
        return f.RING_RESET | lacks

    def begin(self, queues: Sequence[Queue], *, again: bool) -> None:
        """Start the rings that the driver made, or go on with them after an update."""
        if not self.frontend.lives:
            self.port.broken("there is no back end")
            return
        self._queues = list(queues)
        plans: list[Plan] = []
        for index, queue in enumerate(queues):
            chains = queue.in_flight() if queue.state.ready else []
            self._pending[index] = {chain.head: chain for chain in chains}
            if queue.state.ready:
                heads = list(self._pending[index])
                plans.append(Plan(index, queue.state.size, queue.state.desc, heads))
        features = self.port.features & ~_OURS
        start = self.frontend.go_on if again else self.frontend.begin
        start(features, plans)
        for index, queue in enumerate(queues):
            self._run(self.take, index, queue)

    def stop(self) -> None:
        """Return when the back end has given all chains back, or is hung up."""
        self.frontend.forget()

    def reset(self) -> None:
        """Forget the driver's rings, and look for a new back end if the old one is gone."""
        self._queues = []
        self._pending = [{} for _ in self.queues]
        self.frontend.reconnect()

    def changed(self) -> None:
        """Take a change of the configuration space; a device that has none of the back end's has nothing to take."""

    def _run(self, work: Callable[[int, Queue], object], index: int, queue: Queue) -> None:
        def run(queue: Queue) -> None:
            work(index, queue)

        self.port.run(run, queue)

    def take(self, index: int, queue: Queue) -> None:
        """Give the chains in a ring of the guest to the back end."""
        if index >= len(self._queues):  # before the driver was ready
            return
        pending = self._pending[index]
        offered = False
        for chain in queue.peek():
            queue.take(chain)
            pending[chain.head] = chain
            self.frontend.offer(index, chain.head)
            offered = True
        if offered:
            self.frontend.kick(index)

    def _serve(self) -> None:
        """Give back to the guest what the back end has used."""
        for index, queue in enumerate(self._queues):
            if queue.state.ready:
                self._run(self._give_back, index, queue)

    def _give_back(self, index: int, queue: Queue) -> None:
        pending = self._pending[index]
        while (used := self.frontend.take(index)) is not None:
            head, length = used
            chain = pending.pop(head, None)
            if chain is None or length > chain.room:
                self.frontend.fault(
                    f"the back end used chain {head} of ring {index} with {length} bytes, which it does not have"
                )
                return
            # Not only what it says it wrote: decoded code must not outlive a write that it forgot.
            chain.filled(0, chain.room)
            queue.complete(chain, length)

    def _on_gone(self, why: str) -> None:
        if self._queues:
            self.port.broken(why)
