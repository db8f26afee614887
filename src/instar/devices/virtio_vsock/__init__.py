"""The socket device."""

from instar.devices.virtio_vsock.device import VirtioVsock
from instar.devices.virtio_vsock.state import VsockConnectionState, VsockState

__all__ = ["VirtioVsock", "VsockConnectionState", "VsockState"]
