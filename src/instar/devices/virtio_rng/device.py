"""virtio-rng: the guest's entropy device."""

from __future__ import annotations

from instar import log
from instar.devices.virtio_rng.state import RngState
from instar.errors import HostError
from instar.virtio.device import VirtioDevice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from instar.cpr.state import State
    from instar.devices.virtio_rng.entropy import EntropySource
    from instar.virtio.queue import Queue

MAX_FILL: Final = (
    64 * 1024
)  # bytes a chain; overlapping descriptors can claim more room than exists


class VirtioRng(VirtioDevice):
    """Fill guest buffers with random bytes of the host.

    Args:
        entropy: Where the bytes come from.
        state_id: Unique name of its state.

    Source: virtio 1.2, 5.4 (device 4, one queue, no feature bits, no config space).
    """

    __slots__ = ("entropy", "state")
    state_class: ClassVar[type[State]] = RngState
    device_id = 4
    queues: ClassVar[tuple[str, ...]] = ("requests",)
    queue_size = 64

    def __init__(self, entropy: EntropySource, *, state_id: str) -> None:
        super().__init__(state_id)
        self.entropy = entropy
        self.state = RngState()

    def on_requests(self, queue: Queue) -> None:
        """Fill what the source has bytes for; the other chains stay in the ring until it has more."""
        self.state.waiting = False
        for chain in queue.peek():
            want = min(chain.room, MAX_FILL)
            try:
                data = self.entropy.read(want) if want else b""
            except HostError as e:
                log.guest(self.state_id, f"{e}; its request is answered with no bytes")
                queue.complete(chain, 0)
                continue
            if want and not data:
                break
            chain.write(data)
            queue.complete(chain, len(data))
            self.state.served += len(data)
        if queue.pending():
            self._wait(queue)

    def reset(self) -> None:
        """Forget what waited."""
        self.state = RngState()

    def resume(self, queue: Queue) -> None:
        """Wait for the source again if chains do."""
        if self.state.waiting:
            self._wait(queue)

    def save_state(self) -> RngState:
        """Return the live state."""
        return self.state

    def load_state(self, state: RngState) -> None:
        """Go on from ``state``."""
        self.state = state

    def _wait(self, queue: Queue) -> None:
        self.state.waiting = True
        self.entropy.when_ready(lambda: self._ready(queue))

    def _ready(self, queue: Queue) -> None:
        if self.state.waiting and queue.state.ready:
            self.port.run(self.on_requests, queue)
