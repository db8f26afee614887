"""Reasons why an update cannot happen now, each for one or more modes."""

from __future__ import annotations

from instar.cpr.errors import BlockedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Source = Callable[[], Iterable[str]]


class Blocker:
    """One reason; hand it to :meth:`Blockers.remove`."""

    __slots__ = ("modes", "reason")

    def __init__(self, reason: str, modes: tuple[str, ...]) -> None:
        self.reason = reason
        self.modes = modes


class Blockers:
    """What stands against an update, by mode.

    Args:
        modes: All modes there are; naming another one is a ``TypeError``.
    """

    __slots__ = ("_entries", "_modes", "_sources")

    def __init__(self, modes: tuple[str, ...]) -> None:
        self._modes = modes
        self._entries: list[Blocker] = []
        self._sources: list[tuple[Source, tuple[str, ...]]] = []

    def add(self, reason: str, *modes: str) -> Blocker:
        """Block ``modes`` (all of them if none is named) with ``reason``, one sentence."""
        made = Blocker(reason, checked_modes(self._modes, modes))
        self._entries.append(made)
        return made

    def remove(self, blocker: Blocker) -> None:
        """Take a reason away; doing so again is fine."""
        self._entries = [entry for entry in self._entries if entry is not blocker]

    def ask(self, source: Source, *modes: str) -> None:
        """Ask ``source`` for further reasons each time: for what comes and goes, such as connections."""
        self._sources.append((source, checked_modes(self._modes, modes)))

    def reasons(self, mode: str) -> list[str]:
        """Return the reasons against ``mode``, oldest first, then those of sources."""
        checked_modes(self._modes, (mode,))
        found = [entry.reason for entry in self._entries if mode in entry.modes]
        for source, modes in self._sources:
            if mode in modes:
                found += source()
        return found

    def check(self, mode: str) -> None:
        """Raise BlockedError if anything stands against ``mode``."""
        reasons = self.reasons(mode)
        if reasons:
            raise BlockedError(reasons)


def checked_modes(known: tuple[str, ...], named: tuple[str, ...]) -> tuple[str, ...]:
    """Return the modes named, all if none; TypeError for one that does not exist."""
    unknown = [mode for mode in named if mode not in known]
    if unknown:
        raise TypeError(f"no such mode: {', '.join(unknown)}")
    return named or known
