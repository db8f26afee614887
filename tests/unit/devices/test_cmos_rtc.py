"""The PC's clock: time in both formats, alarms, interrupts, memory."""

from __future__ import annotations

from calendar import timegm

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr import state as cpr_state
from instar.cpr.errors import StateInvalidError
from instar.devices.cmos_rtc import CmosRtc, CmosRtcState, calendar
from instar.testing.fakes import FakeClock, FakeIrq

SECOND = 1_000_000_000
A, B, C, D = 0x0A, 0x0B, 0x0C, 0x0D
SET, PIE, AIE, UIE, BINARY, HOURS_24 = 0x80, 0x40, 0x20, 0x10, 4, 2
PF, AF, UF, IRQF = 0x40, 0x20, 0x10, 0x80
NOON = timegm((2026, 11, 23, 12, 34, 56))  # a Monday


class Pc:
    def __init__(self, seconds: int = NOON) -> None:
        self.clock = FakeClock(seconds * SECOND)
        self.irq = FakeIrq()
        self.rtc = CmosRtc(self.irq, self.clock, self.clock)

    def get(self, index: int) -> int:
        self.rtc.pio_write(0, 1, index)
        return self.rtc.pio_read(1, 1)

    def put(self, index: int, value: int) -> None:
        self.rtc.pio_write(0, 1, index | 0x80)  # NMI masked, as kernels do it
        self.rtc.pio_write(1, 1, value)

    def time(self) -> tuple[int, ...]:
        return tuple(self.get(index) for index in (0x32, 9, 8, 7, 4, 2, 0))

    def set_time(self, *raw: int) -> None:
        """Set century, year, month, day, hour, minute, second as Linux does."""
        b, a = self.get(B), self.get(A)
        self.put(B, b | SET)
        self.put(A, a & ~0x70 | 0x70)
        for index, value in zip((0x32, 9, 8, 7, 4, 2, 0), raw, strict=True):
            self.put(index, value)
        self.put(B, b)
        self.put(A, a)

    def alarm(self, hour: int, minute: int, second: int) -> None:
        for index, value in ((5, hour), (3, minute), (1, second)):
            self.put(index, value)


@pytest.fixture
def pc():
    return Pc()


def test_time_after_power_on_is_the_hosts_in_bcd_and_24_hours(pc):
    assert pc.time() == (0x20, 0x26, 0x11, 0x23, 0x12, 0x34, 0x56)
    assert pc.get(6) == 2  # Monday; Sunday is 1
    assert (pc.get(A) & 0x7F, pc.get(B), pc.get(D)) == (0x26, 2, 0x80)


def test_time_in_binary_and_12_hours_is_the_same(pc):
    pc.put(B, BINARY)
    assert pc.time() == (20, 26, 11, 23, 0x8C, 34, 56)


@pytest.mark.parametrize(
    ("hour", "raw"), [(0, 0x12), (1, 1), (11, 0x11), (12, 0x92), (13, 0x81), (23, 0x91)]
)
def test_hours_of_the_12_hour_format_have_a_pm_bit(hour, raw):
    pc = Pc(NOON // 86400 * 86400 + hour * 3600)
    pc.put(B, 0)
    assert pc.get(4) == raw


@given(st.integers(-62135596800, 253402300799), st.sampled_from([0, BINARY, HOURS_24, 6]))
def test_any_second_survives_its_registers(seconds, b):
    assert calendar.seconds_of(calendar.registers(seconds, b), b) == seconds


def test_time_that_linux_sets_goes_on_half_a_second_later(pc):
    pc.set_time(0x20, 0x30, 0x01, 0x31, 0x23, 0x59, 0x59)
    pc.clock.advance(SECOND // 2 - 1_000_000)
    assert pc.time() == (0x20, 0x30, 0x01, 0x31, 0x23, 0x59, 0x59)
    pc.clock.advance(2_000_000)
    assert pc.time() == (0x20, 0x30, 0x02, 0x01, 0, 0, 0)


def test_time_stands_still_while_it_is_being_set(pc):
    pc.put(B, SET | HOURS_24)
    pc.clock.advance(5 * SECOND)
    assert pc.get(0) == 0x56
    pc.put(B, HOURS_24)
    assert pc.get(0) == 0x56
    pc.clock.advance(SECOND)
    assert pc.get(0) == 0x57


def test_register_written_without_stopping_moves_the_time_alone(pc):
    pc.put(2, 0x59)
    assert pc.time() == (0x20, 0x26, 0x11, 0x23, 0x12, 0x59, 0x56)


def test_update_is_announced_just_before_the_second(pc):
    pc.clock.advance(SECOND // 2)
    assert pc.get(A) & 0x80 == 0
    pc.clock.advance(SECOND // 2 - 100_000)
    assert pc.get(A) & 0x80 == 0x80
    pc.put(B, SET | HOURS_24)
    assert pc.get(A) & 0x80 == 0


def test_alarm_raises_the_line_until_the_flags_are_read(pc):
    pc.alarm(0x12, 0x35, 0x01)
    pc.put(B, HOURS_24 | AIE)
    pc.clock.advance(5 * SECOND - 1)
    assert not pc.irq.level
    pc.clock.advance(1_000_000)
    assert pc.irq.level
    assert pc.get(C) == IRQF | AF | UF | PF  # the rate after power-on is 1024 Hz
    assert not pc.irq.level
    assert pc.get(C) == 0


def test_alarm_that_is_not_enabled_is_a_flag_without_a_timer(pc):
    pc.alarm(0x12, 0x35, 0x01)
    pc.clock.advance(6 * SECOND)
    assert pc.clock.timers == []
    assert pc.get(C) == AF | UF | PF
    assert not pc.irq.level


def test_alarm_with_all_fields_open_rings_each_second(pc):
    pc.alarm(0xFF, 0xFF, 0xFF)
    pc.put(B, HOURS_24 | AIE)
    for _ in range(3):
        pc.clock.advance(SECOND + 1_000_000)
        assert pc.get(C) & AF
    assert pc.irq.rises == 3


def test_alarm_tomorrow_is_asked_for_again_each_hour(pc):
    pc.alarm(0x12, 0x34, 0x56)
    pc.put(B, HOURS_24 | AIE)
    pc.clock.advance(86_399 * SECOND)
    assert not pc.irq.level
    pc.clock.advance(2 * SECOND)
    assert pc.irq.level
    assert len(pc.clock.timers) <= 1


def test_update_interrupt_comes_each_second(pc):
    pc.put(B, HOURS_24 | UIE)
    for _ in range(3):
        pc.clock.advance(SECOND + 100_000)
        assert pc.get(C) & (IRQF | UF) == IRQF | UF
    assert pc.irq.rises == 3


def test_periodic_interrupt_has_the_rate_of_register_a(pc):
    pc.put(A, 0x2F)  # 2 Hz
    pc.put(B, HOURS_24 | PIE)
    rings = 0
    for _ in range(10):
        pc.clock.advance(SECOND // 2)
        rings += pc.get(C) >> 6 & 1
    assert 9 <= rings <= 10


def test_periodic_interrupt_without_a_rate_never_comes(pc):
    pc.put(A, 0x20)
    pc.put(B, HOURS_24 | PIE)
    assert pc.clock.timers == []


def test_setting_the_time_disables_update_interrupts(pc):
    pc.put(B, HOURS_24 | UIE)
    pc.put(B, HOURS_24 | UIE | SET)
    assert pc.get(B) == HOURS_24 | SET


def test_nonsense_alarm_never_rings(pc):
    pc.alarm(0x99, 0x12, 0x12)
    pc.put(B, HOURS_24 | AIE)
    assert pc.clock.timers == []


def test_memory_keeps_bytes_over_a_reset_and_registers_do_not_reach_it(pc):
    pc.put(0x40, 0xA5)
    pc.put(C, 0xFF)
    pc.put(D, 0)
    pc.rtc.reset()
    assert (pc.get(0x40), pc.get(0x41), pc.get(C), pc.get(D)) == (0xA5, 0, 0, 0x80)


def test_reset_drops_interrupts_and_keeps_the_time(pc):
    pc.set_time(0x20, 0x30, 0x01, 0x31, 0x10, 0, 0)
    pc.alarm(0xFF, 0xFF, 0xFF)
    pc.put(B, HOURS_24 | AIE)
    pc.clock.advance(2 * SECOND)
    pc.rtc.reset()
    assert not pc.irq.level
    assert pc.get(B) == HOURS_24
    assert pc.time()[:4] == (0x20, 0x30, 0x01, 0x31)
    assert pc.clock.timers == []


def test_reset_while_the_time_is_being_set_lets_it_go_on(pc):
    pc.put(B, SET | HOURS_24)
    pc.rtc.reset()
    pc.rtc.save_state().check()
    pc.clock.advance(SECOND)
    assert pc.get(0) == 0x57


def test_index_port_reads_all_ones_and_wide_accesses_do_nothing(pc):
    assert pc.rtc.pio_read(0, 1) == 0xFF
    assert pc.rtc.pio_read(1, 2) == 0xFFFF
    pc.rtc.pio_write(0, 2, 0x1234)
    assert pc.rtc.state.index == 0


def test_alarm_that_passed_while_nobody_ran_rings_after_the_load(pc):
    pc.alarm(0x12, 0x35, 0x01)
    pc.put(B, HOURS_24 | AIE)
    record = cpr_state.save(pc.rtc.save_state())
    other = Pc(NOON + 60)
    other.rtc.load_state(cpr_state.load(CmosRtcState, 1, record))
    other.rtc.post_load()
    assert other.irq.level
    assert other.get(C) & AF


def test_clock_that_the_host_sets_back_rings_for_nothing(pc):
    pc.put(B, HOURS_24 | UIE)
    pc.clock.ns -= 3600 * SECOND
    assert pc.get(C) == 0


@pytest.mark.parametrize(
    "fields", [{"c": 1}, {"cells": b"x"}, {"held": bytes(8)}, {"b": 0x82}, {"b": 0x82, "held": b"1"}]
)  # fmt: skip
def test_impossible_state_is_refused(fields):
    with pytest.raises(StateInvalidError):
        CmosRtcState(**fields).check()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 127), st.integers(0, 255), st.integers(0, 100_000_000_000)),
        max_size=20,
    )
)
def test_any_writes_leave_a_state_that_can_cross_and_a_line_that_follows(script):
    pc = Pc()
    for index, value, ns in script:
        pc.put(index, value)
        pc.clock.ns += ns  # timers are late: nothing may depend on them
        pc.get(index)
        state = pc.rtc.save_state()
        state.check()
        record = cpr_state.save(state)
        assert cpr_state.save(cpr_state.load(CmosRtcState, 1, record)) == record
        assert pc.irq.level == bool(state.c & state.b)
    assert len([timer for timer in pc.clock.timers if timer.callback]) <= 1


def model_alarm(after: int, alarm: tuple[int, int, int]) -> int:
    """The first match, second by second."""
    for at in range(after + 1, after + 86_402):
        fields = (at // 3600 % 24, at // 60 % 60, at % 60)
        if all(raw >= 0xC0 or raw == field for raw, field in zip(alarm, fields, strict=True)):
            return at
    return -1


FIELDS = st.one_of(st.integers(0, 60), st.just(0xFF))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1 << 33), FIELDS, FIELDS, FIELDS)
def test_next_alarm_is_the_first_second_that_matches(after, hour, minute, second):
    alarm = (hour, minute, second)
    assert calendar.next_alarm(after, alarm, BINARY | HOURS_24) == model_alarm(after, alarm)
