"""Every error of the update engine, by whose fault it is and what the program does now.

The text is one sentence: what failed, the value and its limit, what state things are in now.
Hints are notes (``add_note``). ``code`` is stable; texts may improve.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Literal, Self

    Fault = Literal["user", "host", "peer", "bug"]


class CprError(Exception):
    """Root of the engine's errors.

    ``fault`` says who has to act; ``phase`` is the phase of the update it came from ("" outside one).
    """

    code: ClassVar[str] = "cpr-error"
    fault: ClassVar[Fault] = "bug"
    phase: str = ""

    def hint(self, text: str) -> Self:
        """Attach advice for the person who reads this and return the error itself."""
        self.add_note(f"hint: {text}")
        return self


class StateError(CprError):
    """State could not be saved or loaded; neither the source nor a live object was changed."""

    code = "state-error"
    fault: ClassVar[Fault] = "peer"


class StateCorruptError(StateError):
    """The stream is torn, damaged, or not one of ours; the text names where."""

    code = "state-corrupt"


class StateTooNewError(StateError):
    """The record was written by a version that this program does not know."""

    code = "state-too-new"


class StateTooOldError(StateError):
    """The record's version is one that this program does not read (or write) any more."""

    code = "state-too-old"


class StateInvalidError(StateError):
    """The record is well formed but a value in it cannot be true.

    Args:
        text: ``"<path>: <what is wrong>"``, as ``"virtio-rng.budget: 9 bytes, limit 8"``.
        path: State name and field; default: the text up to the first ``": "``.
    """

    code = "state-invalid"

    def __init__(self, text: str, path: str | None = None) -> None:
        super().__init__(text)
        self.path = text.partition(": ")[0] if path is None else path


class DescriptorError(CprError):
    """A named descriptor is missing, is not what it was, or breaks a limit; the table is unchanged."""

    code = "descriptor-error"
    fault: ClassVar[Fault] = "host"


class UpdateRefusedError(CprError):
    """The update was refused before the pause; the old program never stopped."""

    code = "update-refused"
    fault: ClassVar[Fault] = "user"


class BlockedError(UpdateRefusedError):
    """Somebody registered a reason why this mode cannot work now; ``reasons`` has all of them."""

    code = "update-blocked"

    def __init__(self, reasons: list[str]) -> None:
        super().__init__(reasons[0])
        self.reasons = reasons


class TargetError(UpdateRefusedError):
    """The program to execute does not exist or cannot be executed; nothing was changed."""

    code = "target-unusable"


class UpdateAbortedError(CprError):
    """The update failed after the pause began; the old program took over again."""

    code = "update-aborted"
    fault: ClassVar[Fault] = "host"


class UpdateCancelledError(UpdateAbortedError):
    """The update was cancelled on request; everything done for it was undone."""

    code = "update-cancelled"
    fault: ClassVar[Fault] = "user"


class ExecFailedError(UpdateAbortedError):
    """``exec`` returned; the descriptors are close-on-exec again and the old program goes on."""

    code = "exec-failed"


class NoKeeperError(CprError):
    """Nobody can keep the old address space until after the pause: the update works, but stands still for longer."""

    code = "no-keeper"
    fault: ClassVar[Fault] = "host"


class PeerError(CprError):
    """What the other program handed over breaks the agreement (or was tampered with)."""

    code = "peer-broke-protocol"
    fault: ClassVar[Fault] = "peer"


class TakenOverError(CprError):
    """Another program owns the work now; this one must end without touching anything that is shared."""

    code = "taken-over"
    fault: ClassVar[Fault] = "host"


class LoadTimeoutError(CprError):
    """The new program did not get as far as going on in the time that it was given; nothing was decided."""

    code = "load-timeout"
    fault: ClassVar[Fault] = "host"
