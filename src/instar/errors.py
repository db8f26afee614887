"""Every error of the monitor, by whose fault it is.

An error's text is one sentence: what failed, the value and its limit, what state things are in now.
Hints are notes (``add_note``). ``code`` is stable; texts may improve.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Literal

    Fault = Literal["user", "host", "guest", "peer", "bug"]


class InstarError(Exception):
    """Root of the monitor's errors; ``fault`` says who has to act."""

    code: ClassVar[str] = "internal-bug"
    fault: ClassVar[Fault] = "bug"
    exit_status: ClassVar[int] = 70

    def hint(self, text: str) -> InstarError:
        """Attach advice for the person who reads this and return the error itself."""
        self.add_note(f"hint: {text}")
        return self


class ConfigError(InstarError):
    """What the user asked for is wrong; nothing was created or changed."""

    code = "bad-config"
    fault: ClassVar[Fault] = "user"
    exit_status = 2


class HostError(InstarError):
    """The host refused something (the OSError is ``__cause__``)."""

    code = "host-refused"
    fault: ClassVar[Fault] = "host"
    exit_status = 3


class GuestError(InstarError):
    """The guest broke a rule of a device; it never leaves that device."""

    code = "guest-broke-rule"
    fault: ClassVar[Fault] = "guest"


class GuestMemoryError(GuestError):
    """A device was told to access guest memory that does not exist; nothing was accessed."""

    code = "guest-memory"

    def __init__(self, gpa: int, length: int, why: str = "outside RAM") -> None:
        super().__init__(f"{length} bytes at guest address {gpa:#x}: {why}")
        self.gpa = gpa
        self.length = length


class QueueError(GuestError):
    """A virtqueue is not as the specification says."""

    code = "guest-queue"


class CommandError(InstarError):
    """A monitor command was refused; nothing changed. Becomes the QMP error reply."""

    code = "command-refused"
    fault: ClassVar[Fault] = "user"
    qmp_class: ClassVar[str] = "GenericError"


class CommandNotFoundError(CommandError):
    """There is no such command (or it is not available before negotiation)."""

    code = "command-not-found"
    qmp_class = "CommandNotFound"


class WrongStateError(CommandError):
    """The machine's run state does not allow the command."""

    code = "wrong-state"


class BadArgumentError(CommandError):
    """An argument is missing, unknown, of the wrong type or out of range."""

    code = "bad-argument"


class InternalBugError(InstarError):
    """One of our own invariants broke. Please report it."""
