"""Whether this program has confined itself, and what to say when that is why something failed.

Source: own.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

WHY: Final = "-sandbox on leaves this program only what its command line names"
_DEPTH: Final = 5  # causes of causes; they may go round in a circle
_confined: Final[list[bool]] = []


def note_confined() -> None:
    """Remember that it has; there is no way back."""
    if not _confined:
        _confined.append(True)


def is_confined() -> bool:
    """Whether it has."""
    return bool(_confined)


def explained(error: BaseException) -> str:
    """Return the error's text and, if the host forbade something that the sandbox may have forbidden, that."""
    cause: BaseException | None = error
    for _ in range(_DEPTH if _confined else 0):
        if isinstance(cause, PermissionError):
            return f"{error}; {WHY}"
        cause = cause.__cause__ if cause is not None else None
    return str(error)
