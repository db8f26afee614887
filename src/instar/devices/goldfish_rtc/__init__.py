"""The real-time clock."""

from instar.devices.goldfish_rtc.device import GoldfishRtc
from instar.devices.goldfish_rtc.state import GoldfishRtcState

__all__ = ["GoldfishRtc", "GoldfishRtcState"]
