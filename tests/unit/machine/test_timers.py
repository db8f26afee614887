"""Timers of devices fire while the machine runs, and cost nothing once cancelled."""

from __future__ import annotations

import pytest

from instar.loop import Loop
from instar.machine.machine import Machine
from instar.machine.serial import MachineTimers


@pytest.fixture
def machine() -> Machine:
    machine = Machine(name="", uuid="", loop=Loop(), on_reset="reset", on_shutdown="poweroff")
    machine.set_runstate("running")
    return machine


def test_timer_fires_with_the_lock_held(machine: Machine) -> None:
    seen = []
    MachineTimers(machine).call_later(0, lambda: seen.append(machine.lock._is_owned()))
    machine.loop.turn(0)
    machine.loop.turn(0)
    assert seen == [True]


def test_timer_cancelled_before_the_main_loop_heard_of_it_is_never_made(machine: Machine) -> None:
    MachineTimers(machine).call_later(0, lambda: pytest.fail("called")).cancel()
    machine.loop.turn(0)
    assert machine.loop._timers == []


def test_timer_cancelled_later_leaves_nothing_to_call(machine: Machine) -> None:
    timer = MachineTimers(machine).call_later(1 << 60, lambda: pytest.fail("called"))
    machine.loop.turn(0)
    timer.cancel()
    assert [host.callback for host in machine.loop._timers] == [None]


def test_timer_due_while_the_machine_stands_still_waits(machine: Machine) -> None:
    seen = []
    machine.set_runstate("paused")
    MachineTimers(machine).call_later(0, lambda: seen.append(1))
    machine.loop.turn(0)
    machine.loop.turn(0)
    assert seen == []
    assert len(machine._waiting) == 1
