"""Signals of the whole program. ``signal`` is not imported: its enums cost more than all that resuming needs."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # pyright: ignore[reportMissingModuleSource]
from _thread import start_new_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal  # noqa: TC004 - the same names, typed
    from collections.abc import Callable
    from typing import Final

_WINDOW_CHANGE: Final = _signal.SIGWINCH
ENDING: Final = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)
_arrived: Final[list[int]] = []  # signals that called back


def on_ending(callback: Callable[[int], object]) -> None:
    """Call ``callback(signal)`` in the main thread when somebody wants the program to end.

    The program before this one held these signals back while it handed over; they are let in now.
    """

    def handle(number: int, _frame: object) -> None:
        _arrived.append(number)
        callback(number)

    for number in ENDING:
        _signal.signal(number, handle)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, ENDING)


def on_window_change(callback: Callable[[], object]) -> None:
    """Call ``callback()`` in the main thread, at any point of it, when the terminal got another size."""

    def handle(_number: int, _frame: object) -> None:
        callback()

    _signal.signal(_WINDOW_CHANGE, handle)


def told_to_end() -> bool:
    """Whether such a signal has called back: the program after this one would not hear of it."""
    return bool(_arrived)


def start_thread(main: Callable[..., object], *args: object) -> int:
    """Start a thread that takes none of the signals of this module, and return its ident.

    A signal to the process goes to any thread that does not block it: held back by the main thread alone it would be
    taken by another one and end there, unheard of, when the program is replaced.

    Raises:
        RuntimeError: The host has no more threads for us.
    """
    mask = set(_signal.pthread_sigmask(_signal.SIG_BLOCK, (*ENDING, _WINDOW_CHANGE)))
    try:
        return start_new_thread(main, args)
    finally:
        restore(mask)


def hold_ending() -> set[int]:
    """Hold these signals back from this thread, so that the program after this one gets them.

    One that came just before has called back when this returns (:func:`told_to_end`).

    Returns:
        The mask before, for :func:`restore`.
    """
    return set(_signal.pthread_sigmask(_signal.SIG_BLOCK, ENDING))


def restore(mask: set[int]) -> None:
    """Set the mask that :func:`hold_ending` returned."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)


def set_alarm(after_ms: int, callback: Callable[[], object] | None = None) -> None:
    """Call ``callback`` in the main thread after so many ms, between two steps of Python code; 0: not any more."""
    if callback is not None:
        _signal.signal(_signal.SIGALRM, lambda _number, _frame: callback())
    _signal.setitimer(_signal.ITIMER_REAL, after_ms / 1000)
