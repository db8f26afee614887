"""A disk that another program serves (vhost-user-blk)."""

from instar.devices.vhost_user_blk.device import VhostUserBlk
from instar.devices.vhost_user_blk.state import VhostUserBlkState

__all__ = ["VhostUserBlk", "VhostUserBlkState"]
