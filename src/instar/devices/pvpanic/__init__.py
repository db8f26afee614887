"""The panic notifier."""

from instar.devices.pvpanic.device import Pvpanic

__all__ = ["Pvpanic"]
