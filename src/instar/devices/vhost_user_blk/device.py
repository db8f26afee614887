"""vhost-user-blk: a disk whose requests another program serves, such as ``qemu-storage-daemon``.

Source: virtio 1.2, 5.2 (device 2).
"""

from __future__ import annotations

from instar.devices.vhost_user import VhostUserDevice
from instar.devices.vhost_user_blk.state import VhostUserBlkState
from instar.vhostuser import BackendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from instar.cpr.state import State
    from instar.vhostuser import Frontend
    from instar.virtio.queue import Queue

CONFIG_BYTES: Final = 60  # up to and with write_zeroes_may_unmap
# SIZE_MAX, SEG_MAX, GEOMETRY, RO, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, DISCARD, WRITE_ZEROES
_KNOWN: Final = 0b110_1110_0111_0110
_WRITEBACK_OFFSET: Final = 32


class VhostUserBlk(VhostUserDevice):
    """A disk over vhost-user.

    Args:
        frontend: The back end.
        state_id: Unique name of its state.

    Raises:
        BackendError: the back end does not tell the disk's size.
    """

    __slots__ = ("state",)
    state_class: ClassVar[type[State]] = VhostUserBlkState
    device_id = 2
    queues: ClassVar[tuple[str, ...]] = ("requests",)

    def __init__(self, frontend: Frontend, *, state_id: str) -> None:
        super().__init__(frontend, state_id)
        self.state = VhostUserBlkState()
        if not frontend.inherited:
            self._learn()

    def _learn(self) -> None:
        self.state = VhostUserBlkState(config=self.frontend.read_config(CONFIG_BYTES))

    def reset(self) -> None:
        """Bring the reset state; the guest learns what the back end says now."""
        super().reset()
        try:
            self._learn()
        except (
            BackendError
        ):  # it was logged; the guest finds the disk that it knew, and no answers
            return

    def save_state(self) -> VhostUserBlkState:
        """Return the live state."""
        return self.state

    def load_state(self, state: VhostUserBlkState) -> None:
        """Go on from ``state``."""
        self.state = state

    def offered(self) -> int:
        """Return the back end's features of a disk that we know."""
        return self.frontend.features & _KNOWN

    def config(self) -> bytes:
        """Return the configuration space, as the back end told it."""
        return self.state.config

    def write_config(self, offset: int, data: bytes) -> None:
        """Pass the cache mode on; the rest is read-only."""
        if offset == _WRITEBACK_OFFSET and len(data) == 1:
            config = self.state.config
            self.state.config = config[:offset] + data + config[offset + 1 :]
            self.frontend.write_config(offset, data)

    def on_requests(self, queue: Queue) -> None:
        """Give new requests to the back end."""
        self.take(0, queue)
