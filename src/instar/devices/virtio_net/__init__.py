"""virtio-net: a network card."""

from instar.devices.virtio_net.device import VirtioNet
from instar.devices.virtio_net.state import NetState

__all__ = ["NetState", "VirtioNet"]
