"""Timers of devices in virtual time that counts instructions: due between two of them, the same in every run."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import RLock
    from collections.abc import Callable
    from typing import Final, Protocol

    class CountingClock(Protocol):
        """What counts."""

        def now_ns(self) -> int:
            """Return virtual time in nanoseconds."""
            ...

        def kick(self) -> None:
            """Make what runs look at the timers again."""
            ...


NEVER: Final = -1


class VirtualTimers:
    """Timers that the vCPU thread looks at; set and cancelled there, or while it is parked."""

    __slots__ = ("_clock", "_lock", "_pending")

    def __init__(self, clock: CountingClock, lock: RLock) -> None:
        self._clock = clock
        self._lock = lock
        self._pending: list[VirtualTimer] = []

    def call_later(self, delay_ns: int, callback: Callable[[], object]) -> VirtualTimer:
        """Call ``callback`` once with the machine lock held, ``delay_ns`` of virtual time from now."""
        timer = VirtualTimer(self._pending, self._clock.now_ns() + delay_ns, callback)
        self._pending.append(timer)
        self._clock.kick()  # a run that has begun does not know of it
        return timer

    def next_ns(self) -> int:
        """Return when the next one is due, NEVER (-1) if there is none."""
        return min((timer.at_ns for timer in self._pending), default=NEVER)

    def fire(self) -> int:
        """Call what is due; return when the next one is, NEVER (-1) if there is none."""
        while self._pending:
            timer = min(self._pending, key=lambda timer: timer.at_ns)
            if timer.at_ns > self._clock.now_ns():
                return timer.at_ns
            timer.cancel()
            with self._lock:
                timer.callback()
        return NEVER


class VirtualTimer:
    """A pending call."""

    __slots__ = ("_pending", "at_ns", "callback")

    def __init__(
        self, pending: list[VirtualTimer], at_ns: int, callback: Callable[[], object]
    ) -> None:
        self._pending = pending
        self.at_ns = at_ns
        self.callback = callback

    def cancel(self) -> None:
        """Forget the call; calling again, or after it was done, does nothing."""
        if self in self._pending:
            self._pending.remove(self)
