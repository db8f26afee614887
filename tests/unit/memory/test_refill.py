"""Inherited memory is mapped again a little at a time; what was never there is not made."""

from __future__ import annotations

import os

from instar.memory import BackendSpec, open_backend
from instar.memory.refill import CHUNK, Refill

SIZE = 4 * CHUNK


class Table:
    def find(self, _name: str, _ident: int) -> int:
        return -1

    def save(self, name: str, ident: int, fd: int, *, kind: str, owner: str) -> None:
        """Name nothing."""


class Timer:
    def __init__(self, callback) -> None:
        self.callback = callback

    def cancel(self) -> None:
        self.callback = None


class Loop:
    def __init__(self) -> None:
        self.timer: Timer | None = None
        self.turns = 0

    def call_later(self, delay_ns: int, callback) -> Timer:
        assert (delay_ns == 0) == (self.turns == 0)
        self.timer = Timer(callback)
        return self.timer

    def run(self, most: int = 100) -> None:
        while self.timer and self.timer.callback and self.turns < most:
            callback, self.timer.callback = self.timer.callback, None
            self.turns += 1
            callback()


def mapped(first: int, length: int, block) -> bool:
    """Whether all pages are in the page table."""
    with open("/proc/self/maps", encoding="ascii") as maps:
        line = next(line for line in maps if "memory-backend-refilled" in line)
    start = int(line.partition("-")[0], 16)
    with open("/proc/self/pagemap", "rb") as file:
        data = os.pread(file.fileno(), length // 4096 * 8, (start + first) // 4096 * 8)
    return all(data[n + 7] & 0x80 for n in range(0, len(data), 8))


def make():
    block = open_backend(BackendSpec("memfd", "refilled", SIZE, share=True), Table())
    os.pwrite(block.fd, bytes(range(1, 256)) * (CHUNK // 255), CHUNK)
    os.pwrite(block.fd, b"x" * 4096, 3 * CHUNK)
    return block


def test_pages_that_exist_are_mapped_and_holes_stay() -> None:
    block, loop, done = make(), Loop(), []
    blocks = os.fstat(block.fd).st_blocks
    assert not mapped(CHUNK, 4096, block)
    Refill(loop, block, lambda: done.append(1)).start()
    loop.run()
    assert done == [1]
    assert mapped(CHUNK, CHUNK - 4096, block)
    assert mapped(3 * CHUNK, 4096, block)
    assert os.fstat(block.fd).st_blocks == blocks
    os.close(block.fd)


def test_it_can_be_stopped() -> None:
    block, loop, done = make(), Loop(), []
    refill = Refill(loop, block, lambda: done.append(1))
    refill.start()
    loop.run(1)
    refill.stop()
    loop.run()
    assert (loop.turns, done) == (1, [])
    os.close(block.fd)


def test_refill_without_rest_goes_on_in_the_next_turn() -> None:
    class Hurried(Loop):
        def call_later(self, delay_ns: int, callback) -> Timer:
            assert delay_ns == 0
            self.timer = Timer(callback)
            return self.timer

    block, loop, done = make(), Hurried(), []
    Refill(loop, block, lambda: done.append(1), rest=0).start()
    loop.run()
    assert done == [1]
    assert mapped(CHUNK, CHUNK - 4096, block)
    os.close(block.fd)
