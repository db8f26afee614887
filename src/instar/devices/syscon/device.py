"""The test finisher: the guest writes how it wants to end.

Source: SiFive's test device as QEMU's `virt` board has it (device tree: `sifive,test1`, `syscon`).
"""

from __future__ import annotations

from instar import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

REGION_SIZE: Final = 0x1000
_FAIL: Final = 0x3333
_PASS: Final = 0x5555
_RESET: Final = 0x7777


class Syscon:
    """Call back when the guest asks for power off, failure or reset; it has no state.

    Args:
        poweroff: The guest is done.
        fail: The guest is done and failed; the argument is its code, 0 to 65535.
        reset: The guest wants to start again.
    """

    __slots__ = ("fail", "poweroff", "reset_machine")

    def __init__(
        self,
        poweroff: Callable[[], object],
        fail: Callable[[int], object],
        reset: Callable[[], object],
    ) -> None:
        self.poweroff = poweroff
        self.fail = fail
        self.reset_machine = reset

    def reset(self) -> None:
        """Do nothing: there is no state."""

    def mmio_read(self, _offset: int, _size: int) -> int:
        """Read 0: all registers are write-only."""
        return 0

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """Serve a write of 2 or 4 bytes at offset 0; other writes do nothing."""
        command = value & 0xFFFF
        if offset != 0 or size not in {2, 4}:
            log.guest("syscon", f"write of {size} bytes at {offset:#x} does nothing")
        elif command == _PASS:
            self.poweroff()
        elif command == _FAIL:
            self.fail(value >> 16 & 0xFFFF)
        elif command == _RESET:
            self.reset_machine()
        else:
            log.guest("syscon", f"unknown command {command:#x}")
