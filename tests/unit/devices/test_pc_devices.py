"""What else an x86 board has: reset, power, events, exit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.cpr import state as cpr_state
from instar.devices.acpi_ged import AcpiGed, AcpiGedState
from instar.devices.acpi_power import AcpiPower
from instar.devices.debug_exit import DebugExit
from instar.devices.i8042 import I8042
from instar.testing.fakes import FakeIrq


class Calls:
    def __init__(self) -> None:
        self.made: list[object] = []

    def poweroff(self) -> None:
        self.made.append("off")

    def reset(self) -> None:
        self.made.append("reset")

    def end(self, status: int) -> None:
        self.made.append(status)


@pytest.fixture
def calls():
    return Calls()


def test_pulse_of_the_keyboard_controller_resets_and_other_commands_do_not(calls):
    device = I8042(calls.reset)
    for command in (0x20, 0xAA, 0xFF, 0xFE):
        device.pio_write(0, 1, command)
    device.pio_write(0, 2, 0xFE)
    device.reset()
    assert (calls.made, device.pio_read(0, 1)) == (["reset"], 0)


def test_sleep_control_powers_off_for_s5_with_the_enable_bit_only(calls):
    device = AcpiPower(calls.poweroff, calls.reset)
    for value in (5 << 2, 4 << 2 | 0x20, 5 << 2 | 0x20):
        device.pio_write(0, 1, value)
    device.pio_write(1, 1, 0x80)  # kernels clear the wake status
    device.pio_write(0, 2, 5 << 2 | 0x20)
    device.reset()
    assert calls.made == ["off"]
    assert [device.pio_read(offset, 1) for offset in range(3)] == [0, 0, 0]


def test_reset_register_resets_for_its_value_only(calls):
    device = AcpiPower(calls.poweroff, calls.reset)
    for value in (0, 2, 0x101):
        device.pio_write(2, 1, value)
    assert calls.made == ["reset"]


def test_debug_exit_ends_with_the_byte(calls):
    device = DebugExit(calls.end)
    device.pio_write(0, 1, 0x1FF)
    device.reset()
    assert (calls.made, device.pio_read(0, 1)) == ([255], 0)


def test_power_button_holds_the_line_until_the_event_is_read():
    irq = FakeIrq()
    ged = AcpiGed(irq)
    ged.press_power_button()
    ged.press_power_button()
    assert (irq.level, irq.rises) == (True, 1)
    assert (ged.mmio_read(2, 2), ged.mmio_read(0, 4), ged.mmio_read(0, 4)) == (0, 1, 0)
    assert not irq.level


def test_event_that_was_not_read_crosses():
    irq = FakeIrq()
    ged = AcpiGed(FakeIrq())
    ged.press_power_button()
    record = cpr_state.save(ged.save_state())
    other = AcpiGed(irq)
    other.load_state(cpr_state.load(AcpiGedState, 1, record))
    other.post_load()
    assert irq.level
    other.mmio_write(0, 4, 0)
    other.reset()
    assert (irq.level, other.mmio_read(0, 4)) == (False, 0)


@given(st.integers(0, 4), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**64 - 1))
def test_any_access_is_answered(offset, size, value):
    calls = Calls()
    for device in (
        I8042(calls.reset),
        AcpiPower(calls.poweroff, calls.reset),
        DebugExit(calls.end),
    ):
        device.pio_write(offset, size, value)
        assert device.pio_read(offset, size) == 0
    ged = AcpiGed(FakeIrq())
    ged.mmio_write(offset, size, value)
    assert ged.mmio_read(offset, size) == 0
