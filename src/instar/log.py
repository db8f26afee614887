"""What the monitor tells the person who runs it: one line each, on standard error.

Levels say who has to act: ``error``: what you asked for did not happen (``hint``: what may help); ``warning``: odd, but
it goes on; ``info``: a rare change (boot, update, reset); ``debug``: for us. What a guest can cause goes through
:func:`guest`, which cannot flood. Between :func:`hold` and :func:`release` nothing is written: lines wait in a ring.

Source: own; the levels follow Cloud Hypervisor's.
"""

from __future__ import annotations

import os
from select import select
from time import monotonic_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Literal

    Level = Literal["error", "hint", "warning", "info", "debug"]

PROGRAM: Final = "instar-system"
LEVELS: Final[tuple[Level, ...]] = ("error", "hint", "warning", "info", "debug")
RING: Final = 256  # lines kept while held; a pause that says more has a fault of its own
LINE: Final = 1000  # characters; texts may quote what a guest or peer sent
BURST: Final = 5  # lines a site may write at once
REFILL_NS: Final = 1_000_000_000  # one more line of a site each second
SITES: Final = 256  # sites remembered; more than the program has


class _Site:
    """The allowance of one call site."""

    __slots__ = ("at_ns", "dropped", "tokens")

    def __init__(self, at_ns: int) -> None:
        self.at_ns = at_ns
        self.tokens = BURST
        self.dropped = 0

    def allow(self, now_ns: int) -> bool:
        """Take one from the allowance; count what had none."""
        refill = (now_ns - self.at_ns) // REFILL_NS
        if refill > 0:
            self.tokens = min(BURST, self.tokens + refill)
            self.at_ns += refill * REFILL_NS
        if self.tokens == 0:
            self.dropped += 1
            return False
        self.tokens -= 1
        return True


class Log:
    """A log with its ring and its limits; the program has one, tests make their own.

    Args:
        write: Takes a line and returns whether it could; it must not block.
        clock: Nanoseconds that never go back.
    """

    __slots__ = (
        "_clock", "_held", "_ignores_guest", "_level", "_lost", "_overflow", "_ring", "_sites", "_write"
    )  # fmt: skip

    def __init__(self, write: Callable[[str], bool], clock: Callable[[], int]) -> None:
        self._write = write
        self._clock = clock
        self._level = LEVELS.index("warning")
        self._held = False
        self._ignores_guest = False
        self._ring: list[str] = []
        self._overflow = 0  # lines that the ring had no room for
        self._lost = 0  # lines that could not be written
        self._sites: dict[str, _Site] = {}

    def set_level(self, level: Level) -> None:
        """Write this level and the more urgent ones from now on."""
        self._level = LEVELS.index(level)

    def say(self, level: Level, text: str) -> None:
        """Write (or, while held, keep) one line; control characters in ``text`` are made visible."""
        if LEVELS.index(level) > self._level:
            return
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:LINE])
        line = f"{PROGRAM}: {level}: {shown}\n"
        if not self._held:
            self._emit(line)
        elif len(self._ring) < RING:
            self._ring.append(line)
        else:
            self._overflow += 1

    def guest(self, site: str, text: str) -> None:
        """Warn of something the guest did, limited like :meth:`limited`."""
        if not self._ignores_guest:
            self.limited("warning", site, f"guest: {text}")

    def ignore_guest(self) -> None:
        """Say nothing of the guest from now on: it runs elsewhere, and what is seen of its memory is half changed."""
        self._ignores_guest = True

    def limited(self, level: Level, site: str, text: str) -> None:
        """Write at most BURST lines at once and one a second per ``site``, with a count of the others."""
        entry = self._sites.get(site)
        if entry is None:
            if len(self._sites) >= SITES:
                self._sites.clear()
            entry = self._sites[site] = _Site(self._clock())
        if entry.allow(self._clock()):
            more = f" ({entry.dropped} more before it)" if entry.dropped else ""
            entry.dropped = 0
            self.say(level, f"{site}: {text}{more}")

    def hold(self) -> None:
        """Write nothing until :meth:`release`: the guest is paused."""
        self._held = True

    def release(self) -> None:
        """Write what was held, and how much did not fit."""
        self._held = False
        ring, self._ring = self._ring, []
        overflow, self._overflow = self._overflow, 0
        for line in ring:
            self._emit(line)
        if overflow:
            text = f"{overflow} lines of the pause did not fit into {RING} and are lost"
            self.say("warning", text)

    def take(self) -> list[str]:
        """Return what is held, without level and program, and forget it."""
        ring, self._ring = self._ring, []
        return [line.split(": ", 2)[-1].rstrip() for line in ring]

    def _emit(self, line: str) -> None:
        if self._lost:
            notice = f"{PROGRAM}: warning: {self._lost} lines could not be written and are lost\n"
            if self._write(notice):
                self._lost = 0
        if not self._write(line):
            self._lost += 1


def _to_stderr(line: str) -> bool:
    """Write unless that would block: a standard error that is closed or full never stops a VM."""
    try:
        if not select((), (2,), (), 0)[1]:
            return False
        os.write(2, line.encode(errors="backslashreplace"))
    except (OSError, ValueError):
        return False
    return True


_log: Final = Log(_to_stderr, monotonic_ns)
set_level = _log.set_level
guest = _log.guest
ignore_guest = _log.ignore_guest
limited = _log.limited
hold = _log.hold
release = _log.release
take = _log.take


def error(text: str) -> None:
    """Say that something asked for did not happen."""
    _log.say("error", text)


def hint(text: str) -> None:
    """Say what may help, after an error."""
    _log.say("hint", text)


def warning(text: str) -> None:
    """Say that something is odd but goes on."""
    _log.say("warning", text)


def info(text: str) -> None:
    """Say that a rare change happened."""
    _log.say("info", text)


def debug(text: str) -> None:
    """Say something that only developers want to know."""
    _log.say("debug", text)
