"""A port that ends the machine with a status, for guests that are tests.

Source: own; the port is that of QEMU's isa-debug-exit, the status is what was written.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class DebugExit:
    """Call back when the guest is done; it has no state.

    Args:
        end: The guest is done; the argument is its status, 0 to 255.
    """

    __slots__ = ("end",)

    def __init__(self, end: Callable[[int], object]) -> None:
        self.end = end

    def reset(self) -> None:
        """Do nothing: there is no state."""

    def pio_read(self, _offset: int, _size: int) -> int:
        """Read 0."""
        return 0

    def pio_write(self, _offset: int, _size: int, value: int) -> None:
        """End the machine; the low byte is the status."""
        self.end(value & 0xFF)
