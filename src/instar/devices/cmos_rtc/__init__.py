"""The real-time clock of a PC and its memory."""

from instar.devices.cmos_rtc.device import CmosRtc
from instar.devices.cmos_rtc.state import CmosRtcState

__all__ = ["CmosRtc", "CmosRtcState"]
