"""What all devices over vhost-user have in common."""

from instar.devices.vhost_user.device import VhostUserDevice

__all__ = ["VhostUserDevice"]
