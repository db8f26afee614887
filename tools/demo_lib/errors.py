"""What can end the demo before its end."""

from __future__ import annotations

BROKEN = 1  # something that Instar promises did not happen
USER = 2
HOST = 3
INTERRUPTED = 128  # plus the signal's number


class DemoError(Exception):
    """One sentence: what failed, and what is true now.

    Args:
        text: The sentence.
        hint: What the person who reads it can do.
        status: The exit status.
    """

    def __init__(self, text: str, *, hint: str = "", status: int = BROKEN) -> None:
        super().__init__(text)
        self.hint = hint
        self.status = status


class Interrupted(BaseException):
    """A signal asks to end: clean up, say nothing more.

    Args:
        number: The signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = INTERRUPTED + number
