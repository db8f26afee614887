"""State of the interrupt controller."""

from __future__ import annotations

from instar.cpr.errors import StateInvalidError
from instar.cpr.state import State, state, u, us

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

SOURCES: Final = 96  # source 0 does not exist
WORDS: Final = SOURCES // 32
CONTEXTS: Final = 16  # machine and supervisor mode of 8 harts
MAX_PRIORITY: Final = 7


@state("plic", version=1)
class PlicState(State):
    """What harts can tell apart about the controller; bit ``n`` of word ``w`` is source ``32 * w + n``.

    Source: RISC-V PLIC 1.0.0.
    """

    contexts: int = u(8, "Contexts that are wired to harts.")
    priority: list[int] = us(8, "Priority of each source, 0 never interrupts.", length=SOURCES)
    level: list[int] = us(32, "Lines as the devices drive them.", length=WORDS)
    pending: list[int] = us(32, "Requests that no hart claimed yet.", length=WORDS)
    claimed: list[int] = us(32, "Requests claimed and not completed.", length=WORDS)
    enable: list[int] = us(32, "Enabled sources, by context.", length=WORDS * CONTEXTS)
    threshold: list[int] = us(8, "Priority that must be exceeded, by context.", length=CONTEXTS)

    def check(self) -> None:
        """Refuse priorities above the highest and a source 0."""
        if self.contexts > CONTEXTS:
            raise StateInvalidError(f"plic.contexts: {self.contexts}, limit {CONTEXTS}")
        for name, values in (("priority", self.priority), ("threshold", self.threshold)):
            if max(values) > MAX_PRIORITY:
                raise StateInvalidError(f"plic.{name}: {max(values)}, limit {MAX_PRIORITY}")
        if (self.level[0] | self.pending[0] | self.claimed[0]) & 1:
            raise StateInvalidError("plic.pending: source 0 does not exist")
