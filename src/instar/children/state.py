"""State of the processes that Instar started."""

from __future__ import annotations

from instar.cpr.errors import StateInvalidError
from instar.cpr.state import State, i, state, subs, text, u

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MAX_CHILDREN: Final = 64


@state("child", version=1)
class ChildState(State):
    """One process; which program it runs and when it is started again is on the command line.

    Source: own.
    """

    name: str = text("As on the command line.", max=64)
    pid: int = i(32, "Its process id, 0 if it has ended.")
    restarts: int = u(32, "How often it was started again.")
    first_ns: int = u(64, "Host monotonic time of the first restart that still counts.", unit="ns")
    recent: int = u(32, "Restarts since then.")
    started: int = u(
        64,
        "When the kernel started it (clock ticks since boot): its number alone may be another's. 0: not known.",
        optional=True,
    )

    def check(self) -> None:
        """Refuse numbers that stand for other processes or for groups of them."""
        if self.pid < 0 or self.pid == 1:
            raise StateInvalidError(f"child.pid: {self.pid} is no process that we started")


@state("children", version=1)
class ChildrenState(State):
    """All processes that Instar started."""

    children: list[ChildState] = subs(ChildState, "By name.", max=MAX_CHILDREN)
