"""Programs that hang, flood, die, leave children behind or are none of ours: refused, ended, and the guest runs on."""

from __future__ import annotations

import os
import re
import resource
import stat
import sys
from pathlib import Path

import pytest

from harness import QmpError, Vm


@pytest.fixture
def vm(ticker: Path):
    with Vm("-kernel", str(ticker)) as machine:
        machine.console.wait(b"tick 1")
        yield machine


def script(vm: Vm, text: str, interpreter: str = "/bin/sh") -> list[str]:
    """A program of its own, with the words of the machine."""
    path = vm.folder / "target"
    path.write_text(f"#!{interpreter}\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return [str(path), *vm.argv[1:], "-incoming", "memfd:"]


def refused(vm: Vm, command: list[str]) -> str:
    """Try this command; returns why not, after a look that the guest runs and nothing is left behind."""
    vm.prepare_update(command=command)
    before = vm.footprint()
    vm.qmp.command("migrate", uri="memfd:")
    vm.qmp.wait_event("MIGRATION", status="failed")
    assert not [e for e in vm.qmp.events if e["event"] == "STOP"]
    vm.console.wait(b"tick", len(vm.console.text))
    assert vm.footprint() == before
    assert left_behind(vm) == []
    return vm.qmp.command("query-migrate")["error-desc"]


def left_behind(vm: Vm) -> list[str]:
    """Processes that have the mark of a rehearsal of this machine."""
    mark = f"INSTAR_CPR_MARK={vm.process.pid}.".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:  # it ended, or is none of ours
            continue
    return found


def runs(pid: str) -> bool:
    """Whether the process is there, and no zombie that init has not come to yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


ENDS = {
    "closes the pipe and stays": ("exec >&- 2>&-; cat", "it ended without an answer"),
    "says something and fails": ("echo no such thing >&2; exit 3", "no such thing"),
    "leaves a child": ("sleep 1000 & exit 0", "it ended without an answer"),
    "leaves a child in another session": ("setsid sleep 1000 & exit 0", "it ended without an answer"),
    "kills its group": ("kill 0; echo alive >&2", "alive"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "told"), ENDS.values(), ids=ENDS)
def test_program_that_is_none_of_ours_is_refused_and_leaves_nothing(vm: Vm, text, told) -> None:
    assert told in refused(vm, script(vm, text))


STAYS = {"hangs": "exec sleep 1000", "stops": "kill -STOP $$; exec sleep 1000"}


@pytest.mark.parametrize("text", STAYS.values(), ids=STAYS)
def test_program_that_never_answers_is_ended(vm: Vm, text: str) -> None:
    vm.qmp.command("migrate-set-parameters", **{"x-update-timeout": 500})
    assert "it did not answer within" in refused(vm, script(vm, text))


@pytest.mark.parametrize("stream", ["1", "2"])
def test_program_that_floods_is_ended(vm: Vm, stream: str) -> None:
    assert "it writes without an end" in refused(vm, script(vm, f"exec yes >&{stream}"))


def test_program_that_writes_rubbish_into_the_pipe_is_refused(vm: Vm) -> None:
    text = """
import os
for number in range(3, 300):
    try:
        os.write(number, b"rubbish")
    except OSError:
        pass
"""
    assert "its answer makes no sense" in refused(vm, script(vm, text, sys.executable))


def test_program_without_rehearsals_takes_nothing_and_changes_nothing(
    ticker: Path, tmp_path: Path
) -> None:
    """As an older release would: it ignores the rehearsal and starts as if it were alone."""
    log, pid = tmp_path / "log", tmp_path / "pid"
    words = [
        "-pidfile",
        str(pid),
        "-chardev",
        f"file,id=log,path={log}",
        "-monitor",
        "chardev:log",
    ]
    with Vm("-kernel", str(ticker), *words, "-child", "name=c,command=sleep 1000") as vm:
        vm.console.wait(b"tick 1")
        log.write_bytes(b"kept")
        children = vm.children()
        older = script(vm, f'unset INSTAR_CPR_REHEARSAL; exec {vm.argv[0]} "$@"')
        refused(vm, older)
        assert (log.read_bytes(), pid.read_text()) == (b"kept", f"{vm.process.pid}\n")
        assert vm.children() == children
        assert os.path.exists(vm.folder / "qmp")


STAY = {
    "in its group": "sleep 1000",
    "in another session, without the environment": "setsid env -i sleep 1000",
}


@pytest.mark.parametrize("started", STAY.values(), ids=STAY)
def test_wrapper_that_leaves_a_process_with_the_descriptors_is_refused(vm: Vm, started) -> None:
    wrapper = script(vm, f'{started} </dev/null >/dev/null 2>&1 & exec {vm.argv[0]} "$@"')
    told = re.search(r"process (\d+) \(\w+\), which it started, goes on", refused(vm, wrapper))
    assert told is not None
    assert not runs(told[1])


def test_rehearsals_that_are_short_of_descriptors_leave_none_open(vm: Vm) -> None:
    vm.update()
    before = vm.footprint()
    few = len(os.listdir(f"/proc/{vm.process.pid}/fd")) + 12
    soft, hard = resource.prlimit(vm.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(vm.process.pid, resource.RLIMIT_NOFILE, (few, hard))
    for _ in range(3):
        with pytest.raises(QmpError, match=f"the limit of open files is {few}"):
            vm.update()
        assert vm.footprint() == before
    resource.prlimit(vm.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
    vm.update()


def test_wrapper_that_is_a_shell_script_is_accepted(vm: Vm) -> None:
    wrapper = script(vm, f'command -v true >/dev/null 2>&1 || exit 5; exec {vm.argv[0]} "$@"')
    vm.update(command=wrapper, uri="memfd:")


def test_monitor_answers_while_the_new_program_rehearses(vm: Vm) -> None:
    vm.qmp.command("migrate-set-parameters", **{"x-update-timeout": 500})
    vm.prepare_update(command=script(vm, "exec sleep 1000"))
    vm.qmp.command("migrate", uri="memfd:")
    assert vm.qmp.command("query-status")["status"] == "running"
    assert vm.qmp.command("query-migrate")["status"] == "setup"
    vm.qmp.command("migrate_cancel")
    vm.qmp.wait_event("MIGRATION", status="cancelled")
    assert left_behind(vm) == []
