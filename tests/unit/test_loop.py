"""The main loop serves descriptors, timers and bottom halves, in that order, and never starves one."""

from __future__ import annotations

import os
import threading

import pytest

from instar.loop import Loop


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def test_call_soon_runs_in_the_next_turn_in_order() -> None:
    loop, seen = Loop(), []
    loop.call_soon(lambda: seen.append(1))
    loop.call_soon(lambda: loop.call_soon(lambda: seen.append(3)))
    loop.call_soon(lambda: seen.append(2))
    loop.turn(0)
    assert seen == [1, 2]
    loop.turn(0)
    assert seen == [1, 2, 3]


def test_watch_calls_back_when_ready_and_not_after_unwatch(pipe) -> None:
    loop, seen = Loop(), []
    loop.watch(pipe[0], readable=lambda: seen.append(os.read(pipe[0], 10)))
    os.write(pipe[1], b"x")
    loop.turn(0)
    loop.unwatch(pipe[0])
    os.write(pipe[1], b"y")
    loop.turn(0)
    assert seen == [b"x"]


def test_handler_that_unwatches_another_is_obeyed_in_the_same_turn(pipe) -> None:
    loop, seen = Loop(), []
    other = os.pipe()
    loop.watch(pipe[0], readable=lambda: (seen.append("a"), loop.unwatch(other[0])))
    loop.watch(other[0], readable=lambda: (seen.append("b"), loop.unwatch(pipe[0])))
    os.write(pipe[1], b"x")
    os.write(other[1], b"x")
    loop.turn(0)
    assert len(seen) == 1
    for fd in other:
        os.close(fd)


def test_regular_file_is_always_ready(tmp_path) -> None:
    loop, seen = Loop(), []
    with open(tmp_path / "f", "w+b") as file:
        loop.watch(file.fileno(), writable=lambda: seen.append(1))
        loop.turn(None)
        loop.unwatch(file.fileno())
        loop.turn(0)
    assert seen == [1]


def test_timers_fire_in_order_and_cancelled_ones_never() -> None:
    loop, seen = Loop(), []
    loop.call_later(2_000_000, lambda: seen.append("b"))
    loop.call_later(-5, lambda: seen.append("a"))
    loop.call_later(1_000_000, lambda: seen.append("never")).cancel()
    loop.call_later(3_000_000, loop.quit)
    loop.run()
    assert seen == ["a", "b"]


def test_call_threadsafe_wakes_a_sleeping_loop() -> None:
    loop = Loop()
    thread = threading.Thread(target=lambda: loop.call_threadsafe(loop.quit))
    thread.start()
    loop.run()
    thread.join()


def test_calls_from_many_threads_are_all_made() -> None:
    loop, seen = Loop(), []
    threads = [
        threading.Thread(
            target=lambda: [loop.call_threadsafe(lambda: seen.append(1)) for _ in range(200)]
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        loop.turn(0)
        thread.join()
    loop.turn(0)
    assert len(seen) == 800


def test_timers_set_and_cancelled_for_ever_take_no_room() -> None:
    loop, seen = Loop(), []
    loop.call_later(0, lambda: seen.append("kept"))
    for _ in range(10_000):
        loop.call_later(1 << 60, lambda: seen.append("cancelled")).cancel()
    assert len(loop._timers) < 200
    loop.turn(0)
    assert seen == ["kept"]
