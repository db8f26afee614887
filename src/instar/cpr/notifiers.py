"""Who wants to know that an update begins and how it ended, by mode."""

from __future__ import annotations

from instar.cpr.blockers import checked_modes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Literal

    Event = Literal["setup", "done", "failed"]
    Callback = Callable[[Event, str], object]

SETUP: Final = "setup"  # may veto by raising
DONE: Final = "done"  # too late to object
FAILED: Final = "failed"  # takes back what setup did


class Notifier:
    """One listener; hand it to :meth:`Notifiers.remove`."""

    __slots__ = ("callback", "modes")

    def __init__(self, callback: Callback, modes: tuple[str, ...]) -> None:
        self.callback = callback
        self.modes = modes


class Notifiers:
    """The listeners of updates.

    Args:
        modes: All modes there are; naming another one is a ``TypeError``.
        log: Gets a sentence for each exception of a ``done`` or ``failed`` listener.
    """

    __slots__ = ("_entries", "_log", "_modes", "_seen")

    def __init__(self, modes: tuple[str, ...], log: Callable[[str], object]) -> None:
        self._modes = modes
        self._log = log
        self._entries: list[Notifier] = []
        self._seen: list[Notifier] = []  # those that saw setup() of the update under way

    def add(self, callback: Callback, *modes: str) -> Notifier:
        """Call ``callback(event, mode)`` for updates of ``modes`` (all of them if none is named)."""
        made = Notifier(callback, checked_modes(self._modes, modes))
        self._entries.append(made)
        return made

    def remove(self, notifier: Notifier) -> None:
        """Stop calling; doing so again is fine."""
        self._entries = [entry for entry in self._entries if entry is not notifier]
        self._seen = [entry for entry in self._seen if entry is not notifier]

    def setup(self, mode: str) -> None:
        """Tell that an update of ``mode`` begins, oldest listener first.

        What a listener raises passes through: a veto. The later ones are not asked; :meth:`failed` then
        goes to those who were, the vetoing one included.
        """
        checked_modes(self._modes, (mode,))
        self._seen = []
        for entry in list(self._entries):
            if mode in entry.modes:
                self._seen.append(entry)
                entry.callback(SETUP, mode)

    def done(self, mode: str) -> list[Exception]:
        """Tell that everything is saved, to those who saw :meth:`setup`; the ``exec`` after it may still fail.

        Returns:
            What they raised; it was logged and did not keep the others from being told.
        """
        return self._tell(DONE, mode, self._seen)

    def failed(self, mode: str) -> list[Exception]:
        """Tell that the update failed, in reverse and once, to those who saw :meth:`setup`; as :meth:`done`."""
        seen, self._seen = self._seen, []
        return self._tell(FAILED, mode, seen[::-1])

    def _tell(self, event: Event, mode: str, entries: list[Notifier]) -> list[Exception]:
        failures: list[Exception] = []
        for entry in entries:
            try:
                entry.callback(event, mode)
            except Exception as exc:
                failures.append(exc)
                self._log(f"a listener failed on {event} of {mode}: {type(exc).__name__}: {exc}")
        return failures
