"""Signals of the whole program. ``signal`` is not imported: its enums cost more than all that resuming needs."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # pyright: ignore[reportMissingModuleSource]

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal  # noqa: TC004 - the same names, typed
    from collections.abc import Callable
    from typing import Final

ENDING: Final = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)


def on_ending(callback: Callable[[int], object]) -> None:
    """Call ``callback(signal)`` in the main thread when somebody wants the program to end.

    The program before this one held these signals back while it handed over; they are let in now.
    """
    for number in ENDING:
        _signal.signal(number, lambda received, _frame: callback(received))
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, ENDING)


def hold_ending() -> set[int]:
    """Hold these signals back, so that the program after this one gets them; returns the mask before."""
    return set(_signal.pthread_sigmask(_signal.SIG_BLOCK, ENDING))


def restore(mask: set[int]) -> None:
    """Set the mask that :func:`hold_ending` returned."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
