"""A disk that another program serves (vhost-user-blk)."""

from instar.devices.vhost_user_blk.device import MAX_QUEUES, VhostUserBlk, disk_class
from instar.devices.vhost_user_blk.state import VhostUserBlkState

__all__ = ["MAX_QUEUES", "VhostUserBlk", "VhostUserBlkState", "disk_class"]
