"""State of the generic event device."""

from __future__ import annotations

from instar.cpr.state import State, state, u


@state("acpi-ged", version=1)
class AcpiGedState(State):
    """What has happened that the guest was not told.

    Source: own; the register is described to the guest in the DSDT.
    """

    events: int = u(32, "Events since the register was read, a bit each.")
