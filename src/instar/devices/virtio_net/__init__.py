"""virtio-net: a network card."""

from instar.devices.virtio_net.device import VirtioNet, make_card
from instar.devices.virtio_net.state import MAX_PAIRS, NetState

__all__ = ["MAX_PAIRS", "NetState", "VirtioNet", "make_card"]
