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
F_MQ: Final = 1 << 12
# SIZE_MAX, SEG_MAX, GEOMETRY, RO, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, DISCARD, WRITE_ZEROES
_KNOWN: Final = 0b110_1110_0111_0110
_WRITEBACK_OFFSET: Final = 32
_QUEUES_AT: Final = slice(34, 36)
MAX_QUEUES: Final = 16


class VhostUserBlk(VhostUserDevice):
    """A disk over vhost-user; this one has a single queue, :func:`disk_class` makes those that have more.

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
        self.state = VhostUserBlkState(config=self._ask())

    def _ask(self) -> bytes:
        """Return the configuration space; how many queues there are is ours to say."""
        config = self.frontend.read_config(CONFIG_BYTES)
        count = len(self.queues)
        if count == 1:
            return config
        if not self.frontend.features & F_MQ:
            raise BackendError(f"the back end serves one queue, {count} are needed")
        own = bytearray(config)
        own[_QUEUES_AT] = count.to_bytes(2, "little")
        return bytes(own)

    def changed(self) -> None:
        """Show the guest what the back end says now, as another size."""
        try:
            config = self._ask()
        except BackendError:  # it was hung up on, and logged
            return
        if config != self.state.config:
            self.state.config = config
            self.port.config_changed()

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
        known = _KNOWN | F_MQ if len(self.queues) > 1 else _KNOWN
        return self.frontend.features & known

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
        self.take(self.queues.index(queue.name), queue)


def disk_class(count: int) -> type[VhostUserBlk]:
    """Return the class of disks with ``count`` queues, 1 to MAX_QUEUES."""
    if count == 1:
        return VhostUserBlk
    names = ("requests", *(f"requests{n}" for n in range(1, count)))
    members = {f"on_{name}": VhostUserBlk.on_requests for name in names}
    return type("VhostUserBlk", (VhostUserBlk,), {"__slots__": (), "queues": names, **members})
