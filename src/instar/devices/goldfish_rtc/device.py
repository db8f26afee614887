"""A real-time clock in nanoseconds with one alarm.

Source: Android goldfish RTC (register set as in Linux's `rtc-goldfish`); the time is settable as QEMU's is.
"""

from __future__ import annotations

from instar import log
from instar.devices.goldfish_rtc.state import GoldfishRtcState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from instar.cpr.state import State
    from instar.devices.handles import IrqLine, RtcClock, Timer, Timers

REGION_SIZE: Final = 0x1000
_LOW: Final = 0xFFFF_FFFF
_TIME_LOW: Final = 0x00
_TIME_HIGH: Final = 0x04
_ALARM_LOW: Final = 0x08
_ALARM_HIGH: Final = 0x0C
_IRQ_ENABLED: Final = 0x10
_CLEAR_ALARM: Final = 0x14
_ALARM_STATUS: Final = 0x18
_CLEAR_INTERRUPT: Final = 0x1C
_LONGEST_NS: Final = (
    3600 * 1_000_000_000
)  # a timer asks again: the host's clock may be set meanwhile


class GoldfishRtc:
    """Tell the time, and raise a line at a time.

    Args:
        irq: Raised while a fired alarm is enabled and not acknowledged.
        clock: The host's time.
        timers: What wakes it for the alarm.
        state_id: Unique name of its state.
    """

    __slots__ = ("clock", "irq", "state", "state_id", "timer", "timers")
    state_class: ClassVar[type[State]] = GoldfishRtcState

    def __init__(
        self, irq: IrqLine, clock: RtcClock, timers: Timers, state_id: str = "rtc"
    ) -> None:
        self.irq = irq
        self.clock = clock
        self.timers = timers
        self.state_id = state_id
        self.timer: Timer | None = None  # derived: runs while the alarm is armed
        self.state = GoldfishRtcState()

    def reset(self) -> None:
        """Drop alarm and interrupt; the time stays set, as a battery would keep it."""
        self.state = GoldfishRtcState(offset=self.state.offset)
        self._rearm()
        self._drive()

    def save_state(self) -> GoldfishRtcState:
        """Return the live state."""
        return self.state

    def load_state(self, state: GoldfishRtcState) -> None:
        """Go on from ``state``; the line and the alarm follow in :meth:`post_load`."""
        self.state = state

    def post_load(self) -> None:
        """Drive the line and arm the alarm again; one that passed meanwhile fires now."""
        self._drive()
        self._rearm()

    def mmio_read(self, offset: int, size: int) -> int:
        """Read a register; reading the lower half of the time latches the upper half."""
        state = self.state
        if size != 4:
            log.guest("goldfish-rtc", f"read of {size} bytes at {offset:#x}, only words exist")
            return 0
        if offset == _TIME_LOW:
            now = self._now()
            state.time_high = now >> 32
            return now & _LOW
        registers = {
            _TIME_HIGH: state.time_high,
            _ALARM_LOW: state.alarm & _LOW,
            _ALARM_HIGH: state.alarm >> 32,
            _IRQ_ENABLED: int(state.irq_enabled),
            _ALARM_STATUS: int(state.alarm_armed),
        }
        return registers.get(offset, 0)

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """Write a register; writing the lower half of the alarm arms it."""
        state = self.state
        value &= _LOW
        if size != 4:
            log.guest("goldfish-rtc", f"write of {size} bytes at {offset:#x}, only words exist")
        elif offset in {_TIME_LOW, _TIME_HIGH}:
            self._set_time(offset, value)
        elif offset == _ALARM_LOW:
            state.alarm = state.alarm & ~_LOW | value
            state.alarm_armed = True
            self._rearm()
        elif offset == _ALARM_HIGH:
            state.alarm = state.alarm & _LOW | value << 32
            self._rearm()
        elif offset == _IRQ_ENABLED:
            state.irq_enabled = bool(value & 1)
            self._drive()
        elif offset == _CLEAR_ALARM:
            state.alarm_armed = False
            self._rearm()
        elif offset == _CLEAR_INTERRUPT:
            state.irq_pending = False
            self._drive()

    def _now(self) -> int:
        return (self.clock.rtc_ns() + self.state.offset) & (1 << 64) - 1

    def _set_time(self, offset: int, value: int) -> None:
        now = self._now()
        new = now & ~_LOW | value if offset == _TIME_LOW else now & _LOW | value << 32
        ahead = new - self.clock.rtc_ns()
        self.state.offset = (ahead + (1 << 63)) % (1 << 64) - (1 << 63)
        self._rearm()

    def _rearm(self) -> None:
        """Make the host timer agree with the state; fire at once what is due."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if not self.state.alarm_armed:
            return
        left = self.state.alarm - self._now()
        if left > 0:
            self.timer = self.timers.call_later(min(left, _LONGEST_NS), self._rearm)
            return
        self.state.alarm_armed = False
        self.state.irq_pending = True
        self._drive()

    def _drive(self) -> None:
        self.irq.set(self.state.irq_pending and self.state.irq_enabled)
