"""The disk."""

from instar.devices.virtio_blk.device import VirtioBlk
from instar.devices.virtio_blk.state import BlkState

__all__ = ["BlkState", "VirtioBlk"]
