"""The platform-level interrupt controller."""

from instar.devices.plic.device import REGION_SIZE, Plic, PlicLine
from instar.devices.plic.state import PlicState

__all__ = ["REGION_SIZE", "Plic", "PlicLine", "PlicState"]
