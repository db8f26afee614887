"""A port that ends the machine with a status."""

from instar.devices.debug_exit.device import DebugExit

__all__ = ["DebugExit"]
