"""The memory balloon."""

from instar.devices.virtio_balloon.device import VirtioBalloon
from instar.devices.virtio_balloon.state import BalloonState

__all__ = ["BalloonState", "VirtioBalloon"]
