"""What the machine is doing, and which changes are possible: a table.

Names and meaning are QEMU's ``RunState``; those of its states that nothing here can enter are left out.
"""

from __future__ import annotations

from instar.errors import InternalBugError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Literal

    RunState = Literal[
        "prelaunch",
        "inmigrate",
        "running",
        "paused",
        "finish-migrate",
        "postmigrate",
        "restore-vm",
        "save-vm",
        "shutdown",
        "internal-error",
        "io-error",
        "guest-panicked",
        "watchdog",
    ]

# from -> the states that may follow
TRANSITIONS: Final[dict[RunState, tuple[RunState, ...]]] = {
    "prelaunch": ("running", "inmigrate", "finish-migrate", "paused", "shutdown"),
    "inmigrate": ("running", "paused", "prelaunch", "shutdown", "internal-error", "postmigrate", "finish-migrate",
                  "io-error", "guest-panicked", "watchdog"),
    "running": ("paused", "finish-migrate", "shutdown", "internal-error", "io-error", "guest-panicked", "watchdog",
                "save-vm", "restore-vm"),
    "paused": ("running", "finish-migrate", "postmigrate", "shutdown", "prelaunch", "save-vm", "restore-vm"),
    "finish-migrate": ("running", "paused", "postmigrate", "prelaunch", "shutdown", "internal-error", "io-error",
                       "guest-panicked", "watchdog"),
    "postmigrate": ("running", "finish-migrate", "prelaunch", "paused", "shutdown", "internal-error", "io-error",
                    "guest-panicked", "watchdog"),
    "restore-vm": ("running", "prelaunch"),
    "save-vm": ("running",),
    "shutdown": ("paused", "finish-migrate", "prelaunch"),
    "internal-error": ("paused", "finish-migrate", "prelaunch"),
    "io-error": ("running", "finish-migrate", "prelaunch", "paused"),
    "guest-panicked": ("running", "finish-migrate", "prelaunch", "paused"),
    "watchdog": ("running", "finish-migrate", "prelaunch", "paused"),
}  # fmt: skip

# A machine in one of these must be reset before it may run again.
NEEDS_RESET: Final[frozenset[RunState]] = frozenset({"shutdown", "internal-error"})


class RunStateMachine:
    """The current run state; changes only along the table."""

    __slots__ = ("current",)

    def __init__(self, initial: RunState = "prelaunch") -> None:
        self.current: RunState = initial

    def set(self, new: RunState) -> None:
        """Go to ``new`` (staying is always possible).

        Raises:
            InternalBugError: the table has no such row; the state did not change.
        """
        if new != self.current and new not in TRANSITIONS[self.current]:
            raise InternalBugError(f"run state {self.current} cannot become {new}")
        self.current = new
