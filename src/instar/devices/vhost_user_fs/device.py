"""vhost-user-fs: a folder of the host, served by another program such as ``virtiofsd``.

Source: virtio 1.2, 5.11 (device 26).
"""

from __future__ import annotations

from struct import Struct

from instar.devices.vhost_user import VhostUserDevice
from instar.devices.vhost_user_fs.state import VhostUserFsState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from instar.cpr.state import State
    from instar.vhostuser import Frontend
    from instar.virtio.queue import Queue

_CONFIG: Final = Struct("<36sI")  # tag, request queues


class VhostUserFs(VhostUserDevice):
    """A file system over vhost-user.

    Args:
        frontend: The back end.
        tag: What the guest mounts; 1 to 36 bytes of UTF-8.
        state_id: Unique name of its state.
    """

    __slots__ = ("state", "tag")
    state_class: ClassVar[type[State]] = VhostUserFsState
    device_id = 26
    queues: ClassVar[tuple[str, ...]] = ("hiprio", "requests")

    def __init__(self, frontend: Frontend, *, tag: str, state_id: str) -> None:
        super().__init__(frontend, state_id)
        self.tag = tag
        self.state = VhostUserFsState(tag=tag)

    def reset(self) -> None:
        """Bring the reset state."""
        super().reset()
        self.state = VhostUserFsState(tag=self.tag)

    def save_state(self) -> VhostUserFsState:
        """Return the live state."""
        return self.state

    def load_state(self, state: VhostUserFsState) -> None:
        """Go on from ``state``."""
        self.state = state

    def config(self) -> bytes:
        """Return tag and number of request queues."""
        return _CONFIG.pack(self.state.tag.encode(), 1)

    def on_hiprio(self, queue: Queue) -> None:
        """Give new urgent requests to the back end."""
        self.take(0, queue)

    def on_requests(self, queue: Queue) -> None:
        """Give new requests to the back end."""
        self.take(1, queue)
