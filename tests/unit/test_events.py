"""Events reach every listener, in order; held ones keep their time."""

from __future__ import annotations

from instar.events import EventBus


def test_emit_reaches_all_listeners_in_order() -> None:
    bus, seen = EventBus(), []
    bus.subscribe(lambda name, data: seen.append((1, name, data)))
    bus.subscribe(lambda name, data: seen.append((2, name, data)))
    bus.emit("STOP")
    bus.emit("SHUTDOWN", {"guest": True})
    assert seen == [
        (1, "STOP", {}),
        (2, "STOP", {}),
        (1, "SHUTDOWN", {"guest": True}),
        (2, "SHUTDOWN", {"guest": True}),
    ]


def test_held_events_come_later_with_their_own_time() -> None:
    bus, seen = EventBus(), []
    bus.hold()
    bus.emit("STOP")
    bus.emit("RESUME")
    bus.subscribe(lambda name, _: seen.append((name, bus.stamp_ns)))
    assert seen == []
    bus.release()
    assert [name for name, _ in seen] == ["STOP", "RESUME"]
    assert 0 < seen[0][1] <= seen[1][1]


def test_listener_that_leaves_is_not_called_again() -> None:
    bus, seen = EventBus(), []

    def once(name: str, _data: object) -> None:
        seen.append(name)
        bus.unsubscribe(once)

    bus.subscribe(once)
    bus.emit("STOP")
    bus.emit("STOP")
    bus.unsubscribe(once)
    assert seen == ["STOP"]
