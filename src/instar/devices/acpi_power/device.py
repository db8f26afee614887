"""ACPI's sleep control and status registers and the reset register, at three ports.

Source: ACPI specification 6.5, 4.8.3.7 (sleep control and status), 4.8.3.6 (reset register).
"""

from __future__ import annotations

from instar import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

PORTS: Final = 3
_CONTROL, _STATUS, _RESET = 0, 1, 2
_SLEEP_ENABLE: Final = 1 << 5
_RESET_VALUE: Final = 1
SOFT_OFF: Final = 5


class AcpiPower:
    """Call back when the guest wants to be off or to start again; it has no state.

    Args:
        poweroff: The guest is done.
        reset: The guest wants to start again.
    """

    __slots__ = ("poweroff", "reset_machine")

    def __init__(self, poweroff: Callable[[], object], reset: Callable[[], object]) -> None:
        self.poweroff = poweroff
        self.reset_machine = reset

    def reset(self) -> None:
        """Do nothing: there is no state."""

    def pio_read(self, _offset: int, _size: int) -> int:
        """Read 0: the machine did not sleep, so it did not wake up."""
        return 0

    def pio_write(self, offset: int, size: int, value: int) -> None:
        """Serve a write of one byte; the only sleep there is is off."""
        if size == 1 and offset == _CONTROL and value & _SLEEP_ENABLE:
            if value >> 2 & 7 == SOFT_OFF:
                self.poweroff()
            else:
                log.guest("acpi", f"sleep state {value >> 2 & 7} does not exist")
        elif size == 1 and offset == _RESET and value & 0xFF == _RESET_VALUE:
            self.reset_machine()
        elif (size, offset) not in {(1, _STATUS), (1, _CONTROL)}:
            log.guest("acpi", f"write of {value:#x}, {size} bytes at {offset} does nothing")
