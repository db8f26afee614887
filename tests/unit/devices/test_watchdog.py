"""The watchdog and the panic notifier."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.cpr import state as cpr_state
from instar.devices.pvpanic import Pvpanic
from instar.devices.watchdog import Watchdog, WatchdogState
from instar.testing.fakes import FakeClock

CONTROL, CONFIG, MODE = 0x10, 0x14, 0x18
RESTART = 0x14AF  # key 0xa57, bit 0
SECOND = 1_000_000_000


class Guarded:
    def __init__(self) -> None:
        self.clock = FakeClock(0)
        self.barks = 0
        self.watchdog = Watchdog(self.clock, self.clock, self.bark)

    def bark(self) -> None:
        self.barks += 1

    def start(self, seconds: int = 2, config: int = 1) -> None:
        self.watchdog.mmio_write(CONFIG, 4, config)
        self.watchdog.mmio_write(MODE, 4, seconds << 4 | 1)


@pytest.fixture
def guarded() -> Guarded:
    return Guarded()


def test_guest_that_forgets_it_is_found_once(guarded):
    guarded.start(2)
    guarded.clock.advance(2 * SECOND - 1)
    assert guarded.barks == 0
    guarded.clock.advance(100 * SECOND)
    assert guarded.barks == 1


def test_guest_that_restarts_it_in_time_is_left_alone(guarded):
    guarded.start(2)
    for _ in range(10):
        guarded.clock.advance(SECOND)
        guarded.watchdog.mmio_write(CONTROL, 4, RESTART)
    assert guarded.barks == 0
    assert len(guarded.clock.timers) <= 1


def test_wrong_key_does_not_restart_it(guarded):
    guarded.start(2)
    guarded.clock.advance(SECOND)
    guarded.watchdog.mmio_write(CONTROL, 4, 1)
    guarded.clock.advance(SECOND)
    assert guarded.barks == 1


@pytest.mark.parametrize("stop", [lambda w: w.mmio_write(MODE, 4, 0), lambda w: w.reset()])
def test_stopped_watchdog_does_nothing(guarded, stop):
    guarded.start(2)
    stop(guarded.watchdog)
    guarded.clock.advance(100 * SECOND)
    assert guarded.barks == 0


def test_configuration_without_action_does_nothing(guarded):
    guarded.start(2, config=2)
    guarded.clock.advance(100 * SECOND)
    assert guarded.barks == 0


def test_update_keeps_what_is_left_of_the_interval(guarded):
    guarded.start(2)
    guarded.clock.advance(SECOND)
    record = cpr_state.save(guarded.watchdog.save_state())
    guarded.clock.timers.clear()
    guarded.watchdog = Watchdog(guarded.clock, guarded.clock, guarded.bark)
    guarded.watchdog.load_state(cpr_state.load(WatchdogState, 1, record))
    guarded.watchdog.post_load()
    guarded.clock.advance(SECOND - 1)
    assert guarded.barks == 0
    guarded.clock.advance(1)
    assert guarded.barks == 1


accesses = st.lists(
    st.tuples(st.integers(0, 0x1F), st.sampled_from([1, 2, 4, 8]), st.integers(0, (1 << 64) - 1)),
    max_size=20,
)


@given(accesses)
def test_hostile_accesses_leave_one_timer_at_most(script):
    guarded = Guarded()
    for offset, size, value in script:
        guarded.watchdog.mmio_write(offset, size, value & ((1 << 8 * size) - 1))
        assert guarded.watchdog.mmio_read(offset, size) <= 0xFFFF_FFFF
        guarded.clock.advance(SECOND)
        cpr_state.save(guarded.watchdog.save_state())
    live = [timer for timer in guarded.clock.timers if timer.callback is not None]
    assert len(live) <= 1


@pytest.mark.parametrize(
    ("offset", "size", "value", "heard"),
    [
        (0, 1, 1, ["panic"]),
        (0, 1, 3, ["panic"]),
        (0, 1, 2, ["crash"]),
        (0, 1, 4, []),
        (1, 1, 1, []),
        (0, 4, 1, []),
    ],
)
def test_pvpanic_hears_a_panic_and_nothing_else(offset, size, value, heard):
    calls: list[str] = []
    device = Pvpanic(lambda: calls.append("panic"), lambda: calls.append("crash"))
    device.mmio_write(offset, size, value)
    assert (calls, device.mmio_read(0, 1), device.mmio_read(1, 1)) == (heard, 3, 0)
