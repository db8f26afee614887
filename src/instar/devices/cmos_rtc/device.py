"""The real-time clock of a PC: an MC146818A with battery-backed memory, behind an index and a data port.

Time passes by itself: what has happened is found out when somebody looks, and a host timer runs only while the guest
has enabled an interrupt.

Source: Motorola MC146818A data sheet; century in register 0x32; what Linux's rtc-cmos and mc146818-lib use.
"""

from __future__ import annotations

from instar import log
from instar.devices.cmos_rtc import calendar
from instar.devices.cmos_rtc.state import CELLS, CmosRtcState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from instar.cpr.state import State
    from instar.devices.handles import IrqLine, RtcClock, Timer, Timers

PORTS: Final = 2
_TIME: Final = (0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32)
_ALARM: Final = {0x01: "alarm_second", 0x03: "alarm_minute", 0x05: "alarm_hour"}
_A, _B, _C, _D = 0x0A, 0x0B, 0x0C, 0x0D
_UPDATING: Final = 0x80  # of A
_VALID: Final = 0x80  # of D: the battery is good
_SET, _PIE, _AIE, _UIE, _SQWE = 0x80, 0x40, 0x20, 0x10, 0x08  # of B
_PF, _AF, _UF, _IRQF = 0x40, 0x20, 0x10, 0x80  # of C; the same bits enable them in B
_DIVIDER_RESET: Final = 0x60
_SECOND: Final = 15  # a second is 2^15 ticks
_TICKS: Final = 1 << _SECOND
_UPDATE_TICKS: Final = 8  # 244 us
_NS: Final = 1_000_000_000
_LONGEST_NS: Final = 3600 * _NS  # a timer asks again: the host's clock may be set meanwhile
_FAR: Final = 1 << 62


class CmosRtc:
    """Tell the time, ring at a time, and keep bytes.

    Args:
        irq: Raised while something enabled has happened and register C was not read.
        clock: The host's time.
        timers: What wakes it for an interrupt.
        state_id: Unique name of its state.
    """

    __slots__ = ("clock", "irq", "state", "state_id", "timer", "timers")
    state_class: ClassVar[type[State]] = CmosRtcState

    def __init__(
        self, irq: IrqLine, clock: RtcClock, timers: Timers, state_id: str = "rtc"
    ) -> None:
        self.irq = irq
        self.clock = clock
        self.timers = timers
        self.state_id = state_id
        self.timer: Timer | None = None  # derived: runs while an interrupt is enabled
        self.state = CmosRtcState()
        self.state.checked = self._now()

    def reset(self) -> None:
        """Drop interrupts; time, alarm and memory stay, as a battery keeps them."""
        state = self.state
        if state.b & _SET:
            self._release()
        state.b &= ~(_SET | _PIE | _AIE | _UIE | _SQWE)
        state.index = state.c = 0
        state.checked = self._now()
        self._rearm()

    def save_state(self) -> CmosRtcState:
        """Return the live state."""
        return self.state

    def load_state(self, state: CmosRtcState) -> None:
        """Go on from ``state``; line and timer follow in :meth:`post_load`."""
        self.state = state

    def post_load(self) -> None:
        """Drive the line and wait again; what rang meanwhile rings now."""
        self._rearm()

    # ------------------------------------------------------------------- the guest's side

    def pio_read(self, offset: int, size: int) -> int:
        """Read the index port (all ones: it is write-only) or the register that it chose."""
        if offset == 0 or size != 1:
            return (1 << 8 * size) - 1
        return self._read(self.state.index)

    def pio_write(self, offset: int, size: int, value: int) -> None:
        """Write the index port or the register that it chose."""
        if size != 1:
            log.guest("cmos-rtc", f"write of {size} bytes does nothing, registers are bytes")
        elif offset == 0:
            self.state.index = value & CELLS - 1  # bit 7 masks the NMI, which nobody sends
        else:
            self._write(self.state.index, value & 0xFF)

    def _read(self, index: int) -> int:
        state = self.state
        if index in _TIME:
            raw = state.held or calendar.registers(self._now() >> _SECOND, state.b)
            return raw[_TIME.index(index)]
        if index in _ALARM:
            return int(getattr(state, _ALARM[index]))
        if index == _C:
            return self._read_flags()
        registers = {
            _A: state.a | (_UPDATING if self._updating() else 0),
            _B: state.b,
            _D: _VALID,
        }
        if index in registers:
            return registers[index]
        return state.cells[index] if state.cells else 0

    def _write(self, index: int, value: int) -> None:
        state = self.state
        if index in _TIME:
            self._write_time(_TIME.index(index), value)
        elif index in _ALARM:
            self._look()  # with the alarm that was
            setattr(state, _ALARM[index], value)
        elif index == _A:
            self._write_a(value & ~_UPDATING)
        elif index == _B:
            self._write_b(value)
        elif index not in {_C, _D}:
            cells = bytearray(state.cells or bytes(CELLS))
            cells[index] = value
            state.cells = bytes(cells)
            return
        self._rearm()

    def _updating(self) -> bool:
        return not self.state.b & _SET and self._now() % _TICKS >= _TICKS - _UPDATE_TICKS

    def _read_flags(self) -> int:
        """Return what has happened and forget it."""
        self._look()
        state = self.state
        flags = state.c
        state.c = 0
        value = flags | (_IRQF if flags & state.b else 0)
        self._rearm()
        return value

    def _write_time(self, position: int, value: int) -> None:
        state = self.state
        if state.held:
            held = bytearray(state.held)
            held[position] = value
            state.held = bytes(held)
            return
        self._look()
        now = self._now() >> _SECOND
        raw = bytearray(calendar.registers(now, state.b))
        raw[position] = value
        self._move((calendar.seconds_of(raw, state.b) - now) * _TICKS)

    def _write_a(self, value: int) -> None:
        """Take rate and divider; a divider that leaves reset begins in the middle of a second."""
        self._look()
        was, self.state.a = self.state.a, value
        if was & _DIVIDER_RESET == _DIVIDER_RESET != value & _DIVIDER_RESET:
            self._move(_TICKS // 2 - self._now() % _TICKS)

    def _write_b(self, value: int) -> None:
        self._look()
        state = self.state
        was = state.b
        if value & _SET and not was & _SET:
            state.held = calendar.registers(self._now() >> _SECOND, was)
            value &= ~_UIE  # the data sheet: setting one clears the other
        elif was & _SET and not value & _SET:
            self._release()
        state.b = value

    def _release(self) -> None:
        """Go on from the time registers that were held."""
        state = self.state
        ahead = calendar.seconds_of(state.held, state.b) - (self._now() >> _SECOND)
        state.held = b""
        self._move(ahead * _TICKS)

    # ------------------------------------------------------------------- time

    def _now(self) -> int:
        """Return the guest's time in ticks since 1970."""
        return self.clock.rtc_ns() * _TICKS // _NS + self.state.offset

    def _move(self, ticks: int) -> None:
        """Set the clock ``ticks`` ahead; what lies between does not happen."""
        self.state.offset += ticks
        self.state.checked = self._now()

    def _look(self) -> None:
        """Note in register C what has happened since somebody looked."""
        state = self.state
        now, before = self._now(), state.checked
        state.checked = now
        if now <= before:  # the host's clock was set back
            return
        rate = self._rate()
        if rate and now >> rate != before >> rate:
            state.c |= _PF
        if state.b & _SET:
            return
        if now >> _SECOND != before >> _SECOND:
            state.c |= _UF
        if self._alarm_after(before) <= now:
            state.c |= _AF

    def _rate(self) -> int:
        """Return the binary logarithm of the ticks of a period, 0 if there is none."""
        chosen = self.state.a & 0xF
        return {0: 0, 1: 7, 2: 8}.get(chosen, chosen - 1)

    def _alarm_after(self, ticks: int) -> int:
        state = self.state
        alarm = (state.alarm_hour, state.alarm_minute, state.alarm_second)
        at = calendar.next_alarm(ticks >> _SECOND, alarm, state.b)
        return _FAR if at < 0 else at * _TICKS

    def _rearm(self) -> None:
        """Look, drive the line, and wait for the next thing that the guest has enabled."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self._look()
        state = self.state
        self.irq.set(bool(state.c & state.b))
        at = self._next_event()
        if at < _FAR:
            left = (at - state.checked) * _NS // _TICKS + 1
            self.timer = self.timers.call_later(min(left, _LONGEST_NS), self._rearm)

    def _next_event(self) -> int:
        """Return when something enabled that has not happened yet will happen next, in ticks."""
        state = self.state
        waits = state.b & ~state.c
        now, rate, at = state.checked, self._rate(), _FAR
        if waits & _PIE and rate:
            at = ((now >> rate) + 1) << rate
        if state.b & _SET:
            return at
        if waits & _UIE:
            at = min(at, ((now >> _SECOND) + 1) << _SECOND)
        if waits & _AIE:
            at = min(at, self._alarm_after(now))
        return at
