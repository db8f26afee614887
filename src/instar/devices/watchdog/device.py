"""A watchdog that Debian's riscv64 kernel has a driver for: Allwinner's sun6i (module ``sunxi_wdt``).

Source: register set as in Linux's drivers/watchdog/sunxi_wdt.c (device tree: `allwinner,sun6i-a31-wdt`).
"""

from __future__ import annotations

from instar import log
from instar.devices.watchdog.state import WatchdogState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar, Final, Protocol

    from instar.cpr.state import State
    from instar.devices.handles import Timer, Timers

    class VirtualClock(Protocol):
        """Time that stands still while the VM is stopped."""

        def now_ns(self) -> int:
            """Return nanoseconds."""
            ...


REGION_SIZE: Final = 0x20
CONTROL, CONFIG, MODE = 0x10, 0x14, 0x18
RESTART: Final = 0x0A57 << 1 | 1  # key and bit
ACTS: Final = 1
RUNS: Final = 1
_WORD: Final = 4
_HALF_SECOND: Final = 500_000_000
# Interval by the four bits of the mode register, in half seconds; the other values mean the longest.
_INTERVALS: Final = (1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32)


class Watchdog:
    """Call back when the guest has not said for too long that it lives.

    Args:
        clock: Virtual time: a stopped machine is not late.
        timers: Calls later; that may be early or late, the clock decides.
        expired: Called once each time it runs out, machine lock held.
    """

    __slots__ = ("_clock", "_expired", "_timer", "_timers", "state")
    state_id = "watchdog"
    state_class: ClassVar[type[State]] = WatchdogState

    def __init__(self, clock: VirtualClock, timers: Timers, expired: Callable[[], object]) -> None:
        self._clock = clock
        self._timers = timers
        self._expired = expired
        self._timer: Timer | None = None
        self.state = WatchdogState()

    def reset(self) -> None:
        """Stop."""
        self.state = WatchdogState()
        self._cancel()

    def save_state(self) -> WatchdogState:
        """Return the live state."""
        return self.state

    def load_state(self, state: WatchdogState) -> None:
        """Go on from ``state``."""
        self.state = state

    def post_load(self) -> None:
        """Wait for what is left of the interval."""
        self._wait()

    def mmio_read(self, offset: int, size: int) -> int:
        """Read a register."""
        if size != _WORD:
            return 0
        return {CONFIG: self.state.config, MODE: self.state.mode}.get(offset, 0)

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """Write a register; words only."""
        state = self.state
        if size != _WORD or offset not in {CONTROL, CONFIG, MODE}:
            log.guest("watchdog", f"write of {size} bytes at {offset:#x} does nothing")
        elif offset == CONFIG:
            state.config = value & 3
        elif offset == MODE:
            state.mode = value & 0xF1
            self._start()
        elif value & 0x1FFF == RESTART:
            self._start()

    def _start(self) -> None:
        """Begin the interval anew, if the watchdog runs."""
        state = self.state
        index = min(state.mode >> 4, len(_INTERVALS) - 1)
        state.deadline = self._clock.now_ns() + _INTERVALS[index] * _HALF_SECOND
        state.expired = False
        self._wait()

    def _wait(self) -> None:
        state = self.state
        if not state.mode & RUNS or state.expired:
            self._cancel()
        elif self._timer is None:  # one that rings early is set again for the rest
            left = max(0, state.deadline - self._clock.now_ns())
            self._timer = self._timers.call_later(left, self._ring)

    def _ring(self) -> None:
        self._timer = None
        state = self.state
        if not state.mode & RUNS or state.expired:
            return
        if self._clock.now_ns() < state.deadline:
            self._wait()
            return
        state.expired = True
        if state.config == ACTS:
            self._expired()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
