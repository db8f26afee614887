"""The watchdog."""

from instar.devices.watchdog.device import Watchdog
from instar.devices.watchdog.state import WatchdogState

__all__ = ["Watchdog", "WatchdogState"]
