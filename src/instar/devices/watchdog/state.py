"""State of the watchdog."""

from __future__ import annotations

from instar.cpr.state import State, flag, state, u


@state("watchdog", version=1)
class WatchdogState(State):
    """What the guest wrote, and when the watchdog acts.

    Source: register set of Allwinner's sun6i watchdog, as in Linux's drivers/watchdog/sunxi_wdt.c.
    """

    config: int = u(32, "Configuration register: 1 acts on the machine, others do not.")
    mode: int = u(32, "Mode register: bit 0 runs, bits 4 to 7 choose the interval.")
    deadline: int = u(64, "When it acts, in virtual time; it runs.", unit="ns")
    expired: bool = flag("It acted and was not started again.")
