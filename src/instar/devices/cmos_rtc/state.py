"""State of the CMOS clock."""

from __future__ import annotations

from instar.cpr.errors import StateInvalidError
from instar.cpr.state import State, blob, i, state, u

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

CELLS: Final = 128  # bytes behind the index register
HELD: Final = 8  # time registers


@state("cmos-rtc", version=1)
class CmosRtcState(State):
    """Registers, memory, and how the guest's time stands to the host's; a tick is 1/32768 s.

    Source: Motorola MC146818A data sheet; register 0x32 as PCs have it.
    """

    index: int = u(7, "Register that the data port shows.")
    a: int = u(7, "Register A: divider and rate.", default=0x26)
    b: int = u(8, "Register B: format and enabled interrupts.", default=2)
    c: int = u(7, "Register C: what has happened since it was read.")
    offset: int = i(64, "What the guest set the clock ahead of the host's.", unit="ticks")
    checked: int = i(64, "Guest's time up to which register C is right.", unit="ticks")
    alarm_second: int = u(8, "Register 1, as written.")
    alarm_minute: int = u(8, "Register 3, as written.")
    alarm_hour: int = u(8, "Register 5, as written.")
    held: bytes = blob("Time registers while updates are inhibited, else empty.", max=HELD)
    cells: bytes = blob("Battery-backed memory; bytes of registers are not used.", max=CELLS)

    def check(self) -> None:
        """Refuse flags that do not exist, and memory or registers of another size."""
        if self.c & ~0x70:
            raise StateInvalidError(f"cmos-rtc.c: {self.c:#x} has unknown bits")
        if len(self.cells) not in {0, CELLS}:
            raise StateInvalidError(f"cmos-rtc.cells: {len(self.cells)} bytes, 0 or {CELLS}")
        if len(self.held) != (HELD if self.b & 0x80 else 0):
            raise StateInvalidError(f"cmos-rtc.held: {len(self.held)} bytes, b is {self.b:#x}")
