"""The real-time clock and its alarm."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr import state as cpr_state
from instar.devices.goldfish_rtc import GoldfishRtc, GoldfishRtcState
from instar.testing.fakes import FakeClock, FakeIrq

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


class Board:
    """A clock and time that stands."""

    def __init__(self, clock=None) -> None:
        self.irq = FakeIrq()
        self.clock = clock or FakeClock(START)
        self.rtc = GoldfishRtc(self.irq, self.clock, self.clock)

    def read(self, offset) -> int:
        return self.rtc.mmio_read(offset, 4)

    def write(self, offset, value) -> None:
        self.rtc.mmio_write(offset, 4, value)

    def time(self) -> int:
        return self.read(0) | self.read(4) << 32

    def set_alarm(self, ns) -> None:
        self.write(0x0C, ns >> 32)
        self.write(0x08, ns & 0xFFFF_FFFF)


@pytest.fixture
def board() -> Board:
    return Board()


def test_time_low_latches_time_high(board):
    low = board.read(0)
    board.clock.advance(1 << 33)
    assert low | board.read(4) << 32 == START


def test_time_is_settable_and_goes_on(board):
    wanted = 1_000_000_000 * SECOND
    board.write(4, wanted >> 32)
    board.write(0, wanted & 0xFFFF_FFFF)
    board.clock.advance(5)
    assert board.time() == wanted + 5


def test_alarm_fires_once_and_raises_the_line(board):
    board.write(0x10, 1)
    board.set_alarm(START + SECOND)
    assert board.read(0x18) == 1
    board.clock.advance(SECOND - 1)
    assert not board.irq.level
    board.clock.advance(1)
    assert (board.irq.level, board.read(0x18)) == (True, 0)
    board.write(0x1C, 1)
    assert not board.irq.level


def test_alarm_in_the_past_fires_at_once(board):
    board.write(0x10, 1)
    board.set_alarm(START - 1)
    assert board.irq.level


def test_alarm_far_away_fires_in_its_time(board):
    board.write(0x10, 1)
    board.set_alarm(START + 10 * 3600 * SECOND)
    board.clock.advance(10 * 3600 * SECOND - 1)
    assert not board.irq.level
    board.clock.advance(1)
    assert board.irq.level


def test_alarm_cleared_does_not_fire(board):
    board.write(0x10, 1)
    board.set_alarm(START + SECOND)
    board.write(0x14, 1)
    board.clock.advance(2 * SECOND)
    assert not board.irq.level


def test_alarm_pending_raises_the_line_when_enabled_later(board):
    board.set_alarm(START)
    assert not board.irq.level
    board.write(0x10, 1)
    assert board.irq.level


def test_alarm_registers_read_back(board):
    board.set_alarm(0x1234_5678_9ABC_DEF0)
    assert (board.read(0x08), board.read(0x0C)) == (0x9ABC_DEF0, 0x1234_5678)


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 8), (0x10, 2)])
def test_access_of_wrong_width_does_nothing(board, offset, size):
    board.rtc.mmio_write(offset, size, 1)
    assert board.rtc.mmio_read(offset, size) == 0
    assert board.rtc.state == GoldfishRtcState()


def test_reset_keeps_the_time_and_drops_the_alarm(board):
    board.write(4, 0)
    board.set_alarm(START)
    before = board.time()
    board.rtc.reset()
    board.clock.advance(7)
    assert board.time() == before + 7
    assert board.read(0x18) == 0


def test_load_midway_arms_the_alarm_again(board):
    board.write(0x10, 1)
    board.set_alarm(START + SECOND)
    new = Board(FakeClock(START))
    new.rtc.load_state(cpr_state.load(GoldfishRtcState, 1, cpr_state.save(board.rtc.save_state())))
    assert new.rtc.state == board.rtc.state
    new.rtc.post_load()
    new.clock.advance(SECOND)
    assert new.irq.level


def test_slots_are_state_handles_and_the_timer():
    handles = {"irq", "clock", "timers", "state_id"}
    assert set(GoldfishRtc.__slots__) == {"state"} | handles | {"timer"}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 4, 8, 0xC, 0x10, 0x14, 0x18, 0x1C, 0x20]),
            st.integers(0, (1 << 32) - 1),
        ),
        max_size=20,
    )
)
def test_any_writes_keep_the_state_valid(writes):
    board = Board()
    for offset, value in writes:
        board.write(offset, value)
        assert 0 <= board.read(offset) < 1 << 32
        assert board.irq.level == (board.rtc.state.irq_pending and board.rtc.state.irq_enabled)
    state = board.rtc.state
    assert cpr_state.load(GoldfishRtcState, 1, cpr_state.save(state)) == state
