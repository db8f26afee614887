"""What the machine does when the host gives its guest up."""

from __future__ import annotations

import pytest

from instar import log
from instar.errors import HostError
from instar.loop import Loop
from instar.machine.machine import Machine


class Vcpus:
    def pause(self) -> None: ...

    hold = clock_stop = clock_start = resume = pause


class Board:
    refusal = ""

    def reset(self) -> None:
        if self.refusal:
            raise HostError(self.refusal)


@pytest.fixture
def machine() -> Machine:
    machine = Machine(name="", uuid="", loop=Loop(), on_reset="reset", on_shutdown="poweroff")
    machine.vcpus, machine.board = Vcpus(), Board()
    machine._drainables = machine._retriers = machine._disks = ()
    return machine


@pytest.fixture
def errors(monkeypatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(log, "error", said.append)
    return said


def test_reset_that_the_host_refuses_stops_the_machine_and_may_be_tried_again(machine, errors):
    machine.set_runstate("running")
    machine.board.refusal = "no vCPU"
    machine.reset()
    machine.loop.turn(0)
    assert machine.runstate == "internal-error"
    assert errors == ["the machine is stopped: no vCPU"]
    machine.board.refusal = ""
    machine.reset()
    assert machine.runstate == "prelaunch"
    machine.start()
    machine.loop.turn(0)
    assert machine.runstate == "running"


def test_machine_that_stood_still_when_its_reset_was_refused_does_not_run(machine, errors):
    machine.set_runstate("paused")
    machine.board.refusal = "no vCPU"
    machine.reset()
    machine.loop.turn(0)
    machine.start()
    machine.loop.turn(0)
    assert machine.runstate == "internal-error"


def test_bug_is_told_with_where_it_is_and_a_refusal_of_the_host_as_what_it_is(machine, errors):
    machine.on_bug(ZeroDivisionError("here"))
    assert "please report this" in errors[0]
    errors.clear()
    machine.on_bug(HostError("KVM gave up"))
    assert errors == ["the machine is stopped: KVM gave up"]
