"""What monitors hear of the balloon: at most one event a second, and the last one always."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from instar.events import EventBus
from instar.machine.balloon import Balloon

PAGE = 4096
RAM = 100 * PAGE


class Later:
    """A loop that does things when the test says so."""

    def __init__(self) -> None:
        self.waiting = []

    def call_threadsafe(self, callback) -> None:
        self.waiting.append(callback)

    def call_later(self, _delay_ns, callback) -> None:
        self.waiting.append(callback)

    def go(self) -> None:
        waiting, self.waiting = self.waiting, []
        for callback in waiting:
            callback()


@pytest.fixture
def world():
    loop, events, told = Later(), EventBus(), []
    events.subscribe(lambda _name, data: told.append(data["actual"] // PAGE))
    balloon = Balloon(SimpleNamespace(loop=loop, events=events, ram_size=RAM))
    device = SimpleNamespace(state=SimpleNamespace(actual=0))
    balloon.connect(device)

    def guest_gives(pages: int) -> None:
        device.state.actual = pages
        balloon.changed()

    return SimpleNamespace(loop=loop, told=told, balloon=balloon, guest_gives=guest_gives)


def test_changes_within_a_second_are_one_event(world) -> None:
    world.guest_gives(1)
    world.loop.go()
    world.guest_gives(2)
    world.guest_gives(3)
    assert world.told == [99]
    world.loop.go()
    assert world.told == [99, 97]


def test_what_waits_is_told_when_the_machine_stops_and_only_once(world) -> None:
    world.guest_gives(1)
    world.loop.go()
    world.guest_gives(40)
    world.balloon.settle()
    assert world.told == [99, 60]
    world.loop.go()
    assert world.told == [99, 60]


def test_stop_with_nothing_new_tells_nothing(world) -> None:
    world.balloon.settle()
    world.guest_gives(1)
    world.loop.go()
    world.loop.go()
    world.balloon.settle()
    assert world.told == [99]
