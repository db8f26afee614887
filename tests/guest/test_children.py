"""Processes that Instar starts for the user: through updates, to their end, and with the machine."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from faulty import faulty
from harness import PATIENCE, QmpError, Vm


def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def state_of(pid: int) -> str:
    """The process's state letter; "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def test_child_stays_through_updates_and_is_ended_and_reaped_with_the_machine(ticker):
    with Vm("-kernel", str(ticker), "-child", "name=a,command=sleep 1000") as vm:
        (child,) = vm.children()
        for _ in range(3):
            assert vm.update()["status"] == "completed"
            assert vm.children() == [child]
        vm.qmp.command("quit")
        assert vm.wait_exit() == 0
        assert state_of(child) == ""


def test_child_killed_after_an_update_is_started_again_and_goes_on_through_the_next(ticker):
    with Vm(
        "-kernel", str(ticker), "-child", "name=a,command=sleep 1000,restart=on-failure"
    ) as vm:
        (first,) = vm.children()
        vm.update()
        os.kill(first, signal.SIGKILL)
        until(lambda: vm.children() not in ([], [first]))
        (second,) = vm.children()
        assert "child a was killed by signal 9; it is started again" in vm.said()
        vm.update()
        assert vm.children() == [second]


def test_child_that_ends_during_an_update_is_no_zombie_after_it(ticker):
    with Vm("-kernel", str(ticker), "-child", "name=a,command=sleep 1000") as vm:
        (child,) = vm.children()
        uri = vm.prepare_update()
        os.kill(child, signal.SIGKILL)
        vm.qmp.command("migrate", uri=uri)
        vm.qmp.wait_event("MIGRATION", status="completed")
        until(lambda: state_of(child) == "")
        until(lambda: vm.children() == [])  # the guardian of the update ends, too


def test_child_that_always_fails_stays_down_after_five_restarts(ticker):
    with Vm("-kernel", str(ticker), "-child", "name=a,command=false,restart=on-failure") as vm:
        until(lambda: "stays down" in vm.said())
        assert vm.said().count("it is started again") == 5
        assert vm.qmp.command("query-status")["status"] == "running"
        assert vm.children() == []


@pytest.mark.parametrize("status", ["0", "3"])
def test_child_that_ends_is_not_started_again_without_a_policy(ticker, status):
    command = f"sh -c 'exit {status}'"
    with Vm("-kernel", str(ticker), "-child", f"name=a,command={command}") as vm:
        until(lambda: f"child a ended with status {status}" in vm.said())
        assert vm.children() == []


def test_child_that_the_new_command_line_lacks_refuses_the_update_or_unrehearsed_is_ended(ticker):
    with Vm("-kernel", str(ticker), "-child", "name=a,command=sleep 1000") as vm:
        (child,) = vm.children()
        uri = f"file:{vm.folder}/vm.state"
        at = vm.argv.index("-child")
        command = [*vm.argv[:at], *vm.argv[at + 2 :], "-child", "name=b,command=sleep 1000"]
        with pytest.raises(QmpError, match="-child a: the command line lacks it"):
            vm.update(uri=uri, command=[*command, "-incoming", uri])
        assert vm.children() == [child]
        vm.qmp.command("migrate-set-parameters", **{"x-update-rehearsal": False})
        vm.update(uri=uri, command=[*command, "-incoming", uri])
        until(lambda: state_of(child) == "" and len(vm.children()) == 1)


LOSE = "import instar.migration.incoming as i\nimport os\ndef bad(*a): os.kill(os.getpid(), 9)\ni.Incoming._go = bad\n"


def test_children_go_on_when_the_guardian_takes_over_and_none_is_started_beside_them(
    ticker: Path, tmp_path: Path
) -> None:
    named = "name={},command=sleep 1000,restart=on-failure"
    words = ("-child", named.format("a"), "-child", named.format("b"))
    with Vm("-kernel", str(ticker), *words) as vm:
        first, second = vm.children()
        vm.console.wait(b"tick 1")
        uri = vm.prepare_update(program=faulty(tmp_path, LOSE))
        vm.qmp.command("migrate", uri=uri)
        vm.qmp.wait_event("MIGRATION", status="failed")
        pid = vm.qmp.command("query-migrate")["x-update"]["new-pid"]
        assert pid != vm.process.pid
        assert state_of(first) != "" != state_of(second)
        assert children_of(pid) == []
        os.kill(first, signal.SIGKILL)
        vm.until_said(
            b"child a ended; how is not known, for it was another process's child; it is"
        )
        until(lambda: len(children_of(pid)) == 1)
        (third,) = children_of(pid)
        assert state_of(second) != ""
        vm.qmp.command("quit")
        until(lambda: state_of(pid) == "")
        assert state_of(second) in ("", "Z")  # whoever is init here reaps it when it comes to it
        assert state_of(third) == ""


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
