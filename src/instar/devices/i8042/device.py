"""The keyboard controller of a PC: no keyboard, but the pulse that resets the machine.

Source: IBM PC AT technical reference, 8042; Linux drivers/input/serio/i8042.c for what a kernel asks that looks for it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

_PULSE_RESET: Final = 0xFE


class I8042:
    """The status and command port: call back when the guest pulses the reset line; it has no state.

    The status says that nothing is there to read and that commands are taken, so a kernel that looks for a keyboard
    goes on without one.

    Args:
        reset: The guest wants to start again.
    """

    __slots__ = ("reset_machine",)

    def __init__(self, reset: Callable[[], object]) -> None:
        self.reset_machine = reset

    def reset(self) -> None:
        """Do nothing: there is no state."""

    def pio_read(self, _offset: int, _size: int) -> int:
        """Read the status: 0."""
        return 0

    def pio_write(self, _offset: int, size: int, value: int) -> None:
        """Take a command; all but the reset do nothing."""
        if size == 1 and value & 0xFF == _PULSE_RESET:
            self.reset_machine()
