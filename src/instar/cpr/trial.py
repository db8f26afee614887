"""A new program's time of trial, from adoption until it says that it is ready: whatever ends it gives the work back.

In an update the program before is executed again; in a rehearsal it is told why. Both happen when nobody caught an
exception, when the program ends, and when its time is over (which ends a rehearsal too that nobody waits for any more).

Source: own; docs/decisions/0008.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # pyright: ignore[reportMissingModuleSource]
import atexit
import os
import sys

from instar.cpr.errors import CprError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal  # noqa: TC004 - the same names, typed
    from types import TracebackType
    from typing import Final

    from instar.cpr.adopted import Adopted

ENDING: Final = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)


class Trial:
    """Begins when it is made.

    Args:
        adopted: What is given back.
        version: Of this program, for the reason that is told.
        rehearsing: Is this a rehearsal?
    """

    def __init__(self, adopted: Adopted, version: str, *, rehearsing: bool) -> None:
        self._adopted = adopted
        self._version = version
        self._rehearsing = rehearsing
        self._pid = os.getpid()  # a child that inherits the hooks has nothing to give back
        self._why = "it ended before it was ready"
        self._over = False
        self._old_hook = sys.excepthook
        self._old_alarm: object = None
        self._limit_ms = 0
        sys.excepthook = self._on_exception
        atexit.register(self._on_exit)
        if not adopted.failed:
            self._set_alarm()

    def note(self, error: CprError) -> None:
        """Remember what went wrong, for a program that catches it and ends."""
        self._why = str(error)

    def end(self) -> None:
        """Leave the process as it was: this program is ready."""
        self._over = True
        atexit.unregister(self._on_exit)
        if sys.excepthook == self._on_exception:
            sys.excepthook = self._old_hook
        if self._limit_ms:
            _signal.setitimer(_signal.ITIMER_REAL, 0)
            if _signal.getsignal(_signal.SIGALRM) == self._on_alarm:
                _signal.signal(_signal.SIGALRM, self._old_alarm)  # pyright: ignore[reportArgumentType]

    def fail(self, why: str) -> None:
        """Give the work back; returns if that cannot be, so that this program ends and the guardian acts."""
        if self._over or os.getpid() != self._pid:
            return
        self._over = True
        from instar.cpr.carriers import flush_streams  # noqa: PLC0415 - hardly ever needed

        flush_streams()
        if self._rehearsing:
            from instar.cpr.rehearsal import tell_end  # noqa: PLC0415 - nobody resumes into this

            tell_end(self._adopted, self._version, [why])
        if self._limit_ms:
            _signal.setitimer(_signal.ITIMER_REAL, 0)
        self._adopted.go_back(f"version {self._version}: {why}")

    def _set_alarm(self) -> None:
        limit_ms = self._adopted.info.get("limit-ms")
        if not isinstance(limit_ms, int) or limit_ms <= 0:
            return
        try:
            self._old_alarm = _signal.signal(_signal.SIGALRM, self._on_alarm)
        except ValueError:  # this is not the main thread: time is the guardian's business
            return
        self._limit_ms = limit_ms
        _signal.setitimer(_signal.ITIMER_REAL, limit_ms / 1000)

    def _on_alarm(self, _number: int, _frame: object) -> None:
        # Not by an exception: it would be caught by whatever the program does now.
        self.fail(f"it was not ready within {self._limit_ms} ms")

    def _on_exception(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        self._old_hook(kind, error, trace)
        self.fail(str(error) if isinstance(error, CprError) else f"{kind.__name__}: {error}")

    def _on_exit(self) -> None:
        self.fail(self._why)


def hold_signals() -> list[int]:
    """Hold back the signals that end a program, until :func:`let_in`; return those that were not held before."""
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, ENDING)
    return [int(number) for number in ENDING if number not in before]


def let_in(numbers: object) -> None:
    """Let signals in again that were held back (also by another program, so they are not trusted)."""
    listed: list[object] = numbers if isinstance(numbers, list) else []  # pyright: ignore[reportUnknownVariableType]
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [n for n in ENDING if int(n) in listed])
