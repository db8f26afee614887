"""How far a migration is: QEMU's MigrationStatus, with its transitions as a table."""

from __future__ import annotations

from instar.errors import InternalBugError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Literal

    Status = Literal[
        "none",
        "setup",
        "active",
        "pre-switchover",
        "device",
        "completed",
        "failed",
        "cancelling",
        "cancelled",
    ]

_END: Final[tuple[Status, ...]] = ("failed", "cancelling")
TRANSITIONS: Final[dict[Status, tuple[Status, ...]]] = {
    "none": ("setup", "active"),  # active: coming in
    "setup": ("active", *_END),
    "active": ("pre-switchover", "device", "completed", *_END),
    "pre-switchover": ("device", *_END),
    "device": ("completed", *_END),
    "completed": ("setup",),
    "failed": ("setup", "active"),
    "cancelling": ("cancelled", "completed"),  # completed: the other program was faster
    "cancelled": ("setup",),
}
IN_PROGRESS: Final[frozenset[Status]] = frozenset(
    {"setup", "active", "pre-switchover", "device", "cancelling"}
)


class StatusMachine:
    """The current status; changes only along the table."""

    __slots__ = ("current", "error")

    def __init__(self) -> None:
        self.current: Status = "none"
        self.error = ""  # one sentence, with status failed

    @property
    def in_progress(self) -> bool:
        """Whether a migration is under way."""
        return self.current in IN_PROGRESS

    def set(self, new: Status, error: str = "") -> None:
        """Go to ``new``.

        Raises:
            InternalBugError: the table has no such row; the status did not change.
        """
        if new not in TRANSITIONS[self.current]:
            raise InternalBugError(f"migration status {self.current} cannot become {new}")
        self.current = new
        self.error = error
