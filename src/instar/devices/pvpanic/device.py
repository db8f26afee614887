"""pvpanic: a guest that panics says so.

Source: QEMU's docs/specs/pvpanic (memory-mapped form, device tree `qemu,pvpanic-mmio`); bits as in Linux's
include/uapi/misc/pvpanic.h.
"""

from __future__ import annotations

from instar import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

REGION_SIZE: Final = 2
PANICKED: Final = 1
CRASH_LOADED: Final = 2  # its own crash kernel takes over: it goes on by itself


class Pvpanic:
    """Call back when the guest panics; it has no state.

    Args:
        panicked: The guest has panicked; called in the vCPU thread, machine lock held.
        crash_loaded: It has, and starts its crash kernel.
    """

    __slots__ = ("_crash_loaded", "_panicked")

    def __init__(self, panicked: Callable[[], object], crash_loaded: Callable[[], object]) -> None:
        self._panicked = panicked
        self._crash_loaded = crash_loaded

    def reset(self) -> None:
        """Do nothing: there is no state."""

    def mmio_read(self, offset: int, _size: int) -> int:
        """Read which events are understood."""
        return PANICKED | CRASH_LOADED if offset == 0 else 0

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """Take an event; of two in one byte the panic counts."""
        if offset == 0 and size == 1 and value & PANICKED:
            self._panicked()
        elif offset == 0 and size == 1 and value & CRASH_LOADED:
            self._crash_loaded()
        else:
            log.guest("pvpanic", f"write of {value:#x}, {size} bytes at {offset:#x} does nothing")
