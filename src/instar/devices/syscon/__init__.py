"""Power off and reset."""

from instar.devices.syscon.device import Syscon

__all__ = ["Syscon"]
