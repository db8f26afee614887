"""ACPI's generic event device: a register with events, and a line that says that there are some.

Source: ACPI specification 6.5, 5.6.9; the register is this board's own and is read by the DSDT.
"""

from __future__ import annotations

from instar.devices.acpi_ged.state import AcpiGedState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from instar.cpr.state import State
    from instar.devices.handles import IrqLine

REGION_SIZE: Final = 4
POWER_BUTTON: Final = 1


class AcpiGed:
    """Tell the guest of what happens to the machine.

    Args:
        irq: Raised while there are events that the guest has not read.
        state_id: Unique name of its state.
    """

    __slots__ = ("irq", "state", "state_id")
    state_class: ClassVar[type[State]] = AcpiGedState

    def __init__(self, irq: IrqLine, state_id: str = "ged") -> None:
        self.irq = irq
        self.state_id = state_id
        self.state = AcpiGedState()

    def reset(self) -> None:
        """Forget all events."""
        self.state = AcpiGedState()
        self._drive()

    def save_state(self) -> AcpiGedState:
        """Return the live state."""
        return self.state

    def load_state(self, state: AcpiGedState) -> None:
        """Go on from ``state``; the line follows in :meth:`post_load`."""
        self.state = state

    def post_load(self) -> None:
        """Drive the line."""
        self._drive()

    def press_power_button(self) -> None:
        """Tell the guest that somebody pressed it; machine lock held."""
        self.state.events |= POWER_BUTTON
        self._drive()

    def mmio_read(self, offset: int, size: int) -> int:
        """Read all events and forget them."""
        if offset != 0 or size != REGION_SIZE:
            return 0
        events = self.state.events
        self.state.events = 0
        self._drive()
        return events

    def mmio_write(self, _offset: int, _size: int, _value: int) -> None:
        """Ignore it: the register is read-only."""

    def _drive(self) -> None:
        self.irq.set(self.state.events != 0)
