"""A folder of the host that another program shows to the guest (vhost-user-fs)."""

from instar.devices.vhost_user_fs.device import VhostUserFs
from instar.devices.vhost_user_fs.state import VhostUserFsState

__all__ = ["VhostUserFs", "VhostUserFsState"]
