"""Somebody ends the program in the middle of an update: it ends, and nothing half done is left on the host."""

from __future__ import annotations

import os
import signal
import time
from _thread import allocate_lock
from pathlib import Path

import pytest

from harness import Vm
from instar import signals
from instar.block.workers import Workers

MIGRATE = b'{"execute": "migrate", "arguments": {"uri": "%s"}}'
QUIT = b'{"execute": "quit"}'


def test_quit_right_after_migrate_leaves_no_state_file(ticker: Path) -> None:
    with Vm("-kernel", str(ticker)) as vm:
        vm.console.wait(b"tick 1")
        uri = vm.prepare_update()
        vm.qmp.socket.sendall(MIGRATE % uri.encode() + QUIT)
        assert vm.wait_exit() == 0
        assert [path.name for path in vm.folder.iterdir()] == ["stderr"]


def test_quit_before_the_switchover_leaves_no_state_file(ticker: Path) -> None:
    with Vm("-kernel", str(ticker)) as vm:
        vm.console.wait(b"tick 1")
        uri = vm.prepare_update()
        pause = {"capability": "pause-before-switchover", "state": True}
        vm.qmp.command("migrate-set-capabilities", capabilities=[pause])
        vm.qmp.command("migrate", uri=uri)
        vm.qmp.wait_event("MIGRATION", status="pre-switchover")
        vm.qmp.command("quit")
        assert "RESUME" not in [event["event"] for event in vm.qmp.events]
        assert vm.wait_exit() == 0
        assert [path.name for path in vm.folder.iterdir()] == ["stderr"]


@pytest.mark.parametrize("delay_ms", [0, 1, 2, 3, 4, 6, 8, 10])
def test_signal_during_an_update_ends_the_old_or_the_new_program(
    ticker: Path, delay_ms: int
) -> None:
    with Vm("-kernel", str(ticker)) as vm:
        vm.console.wait(b"tick 1")
        uri = vm.prepare_update()
        vm.qmp.socket.sendall(MIGRATE % uri.encode())
        time.sleep(delay_ms / 1000)  # not waiting for anything: a moment of the update
        os.kill(vm.process.pid, signal.SIGTERM)
        assert vm.wait_exit() == 0


def test_held_back_signal_is_not_taken_by_another_thread() -> None:
    stop = allocate_lock()
    stop.acquire()
    signals.start_thread(stop.acquire)
    mask = signals.hold_ending()
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        assert signal.SIGHUP in signal.sigpending()
        signal.sigwait([signal.SIGHUP])
    finally:
        signals.restore(mask)
        stop.release()


def test_workers_without_a_thread_from_the_host_do_the_work_themselves(monkeypatch) -> None:
    def refuse(*_args: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(signals, "start_thread", refuse)
    workers = Workers()
    done: list[int] = []
    workers.run(lambda: done.append(1))
    workers.run(lambda: done.append(2))
    assert done == [1, 2]
    workers.close()
