"""A raw disk with its worker threads: everything submitted is answered once, in the thread of the loop."""

from __future__ import annotations

import errno
import os
from _thread import allocate_lock, get_ident

import pytest

from instar.block.raw import BlockSpec, open_block
from instar.block.request import BlockRequest
from instar.block.workers import MAX_THREADS, Workers
from instar.loop import Loop
from instar.testing.fakes import FakeFds

COUNT = 200


@pytest.fixture
def path(tmp_path) -> str:
    name = tmp_path / "disk.img"
    name.write_bytes(bytes(512 * COUNT))
    return str(name)


def write_all(block, done) -> None:
    for n in range(COUNT):
        data = memoryview(bytes((n,)) * 512)
        block.submit(BlockRequest("write", 512 * n, 512, [data], done))


def test_requests_through_the_loop_are_answered_once_in_its_thread(path):
    loop = Loop()
    block = open_block(BlockSpec("d0", path), FakeFds(), loop.call_threadsafe)
    answers: list[tuple[int, int]] = []
    write_all(block, lambda error: answers.append((error, get_ident())))
    while len(answers) < COUNT:
        loop.turn(None)
    assert answers == [(0, get_ident())] * COUNT
    block.close()
    with open(path, "rb") as file:
        assert file.read() == b"".join(bytes((n,)) * 512 for n in range(COUNT))


def test_success_is_answered_by_the_worker_and_failure_in_the_loop(path, capfd):
    loop = Loop()
    lock = allocate_lock()
    here = get_ident()
    answers: list[tuple[int, bool]] = []

    def post_or_run(callback) -> None:
        with lock:
            callback()
        loop.call_threadsafe(lambda: None)

    def done(error: int) -> None:
        answers.append((error, get_ident() == here))

    block = open_block(
        BlockSpec("d0", path), FakeFds(), loop.call_threadsafe, post_or_run=post_or_run
    )
    wrong = memoryview(b"no system call takes every second byte")[::2]
    for n, (op, buffers) in enumerate([("flush", []), ("write", [wrong])], 1):
        with lock:
            block.submit(BlockRequest(op, 0, sum(map(len, buffers)), buffers, done))
        while len(answers) < n:
            loop.turn(None)
    assert answers == [(0, False), (errno.EIO, True)]
    assert "Please report it" in capfd.readouterr().err
    block.close()


def test_drain_answers_everything_and_late_calls_of_the_loop_do_nothing(path):
    posted = []
    block = open_block(BlockSpec("d0", path), FakeFds(), posted.append)
    answers: list[int] = []
    write_all(block, answers.append)
    block.drain()
    assert answers == [0] * COUNT
    for call in posted:
        call()
    assert len(answers) == COUNT
    block.drain()
    block.close()


def test_completion_that_submits_again_is_drained_too(path):
    block = open_block(BlockSpec("d0", path), FakeFds(), lambda _call: None)
    answers: list[int] = []

    def first(error: int) -> None:
        answers.append(error)
        block.submit(BlockRequest("flush", 0, 0, [], answers.append))

    block.submit(BlockRequest("flush", 0, 0, [], first))
    block.drain()
    assert answers == [0, 0]
    block.close()


def test_bug_in_a_worker_is_answered_as_an_io_error(path, capfd):
    block = open_block(BlockSpec("d0", path), FakeFds(), lambda _call: None)
    answers: list[int] = []
    wrong = memoryview(b"no system call takes every second byte")[::2]
    block.submit(BlockRequest("write", 0, len(wrong), [wrong], answers.append))
    block.drain()
    assert answers == [errno.EIO]
    assert "Please report it" in capfd.readouterr().err
    block.close()


def test_workers_never_use_more_threads_than_their_limit():
    workers = Workers()
    reader, writer = os.pipe()
    idents: set[int] = set()

    def job() -> None:
        idents.add(get_ident())
        os.write(writer, b".")

    for _ in range(100):
        workers.run(job)
    seen = 0
    while seen < 100:
        seen += len(os.read(reader, 100))
    assert 1 <= len(idents) <= MAX_THREADS
    os.close(reader)
    os.close(writer)
