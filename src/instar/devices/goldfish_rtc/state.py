"""State of the real-time clock."""

from __future__ import annotations

from instar.cpr.state import State, flag, i, state, u


@state("goldfish-rtc", version=1)
class GoldfishRtcState(State):
    """What the guest can tell apart about its clock.

    Source: Android goldfish RTC, register set as in Linux's `rtc-goldfish`.
    """

    offset: int = i(64, "What the guest set the clock ahead of the host's.", unit="ns")
    time_high: int = u(32, "Upper half of the time when its lower half was read.")
    alarm: int = u(64, "When the alarm fires, in the guest's time.", unit="ns")
    alarm_armed: bool = flag("The alarm will fire.")
    irq_pending: bool = flag("The alarm fired and was not acknowledged.")
    irq_enabled: bool = flag("A fired alarm raises the line.")
