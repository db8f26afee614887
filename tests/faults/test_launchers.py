"""A program that is started by a launcher with ideas of its own: whatever it starts, one program has the guest."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from harness import PATIENCE, PROGRAM, Vm
from instar.image.ticker import STATUS_ADDRESS, STATUS_SIZE, TickerStatus, read_status

# In its rehearsal each of them is harmless.
LAUNCHER = '#!/bin/sh\n[ -n "$INSTAR_CPR_REHEARSAL" ] && exec {real} "$@"\n{rest}'
TWICE = 'setsid {real} "$@" &\nsetsid {real} "$@" &\nsleep 1000\n'
AGAIN = '{real} "$@"\n{real} "$@"\n'
LEAVES = {
    "killed": "setsid sleep 1000 &\nkill -9 $$\n",
    "ended": "setsid sleep 1000 &\nexit 1\n",
    "hangs in a child": "sleep 1000\necho\n",
}


def launcher(folder: Path, rest: str) -> Path:
    path = folder / "launcher"
    path.write_text(LAUNCHER.format(real=PROGRAM, rest=rest.format(real=PROGRAM)))
    path.chmod(0o755)
    return path


def update(vm: Vm, program: Path) -> dict:
    vm.qmp.command(
        "migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}]
    )
    vm.qmp.command("migrate-set-parameters", **{"x-update-timeout": 3000})
    vm.qmp.events.clear()
    vm.qmp.command("x-update", program=str(program))
    while True:
        event = vm.qmp.next_event()
        if event["event"] in ("UPDATE_COMPLETED", "UPDATE_FAILED"):
            return event["data"]


def memory(pid: int) -> Path | None:
    """The guest's memory among a process's descriptors."""
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if "memory-backend-ram0" in os.readlink(link):
                    return link
    return None


def status(pid: int) -> TickerStatus:
    link = memory(pid)
    assert link is not None
    with open(link, "rb") as file:
        return read_status(os.pread(file.fileno(), STATUS_SIZE, STATUS_ADDRESS - (1 << 31)))


def ours(vm: Vm) -> list[int]:
    """The processes with the VM's sockets in their command line or their environment's words."""
    mark = str(vm.folder).encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if (
                    mark in Path(f"/proc/{name}/cmdline").read_bytes()
                    or mark in Path(f"/proc/{name}/fd/2").readlink().as_posix().encode()
                ):
                    found.append(int(name))
    return found


@pytest.fixture
def vm(ticker: Path):
    with Vm("-kernel", str(ticker)) as machine:
        machine.console.wait(b"tick 1")
        yield machine
        for pid in ours(machine):
            with contextlib.suppress(OSError):
                os.kill(pid, 9)


def goes_on(vm: Vm, pid: int) -> None:
    before = status(pid).counter
    deadline = time.monotonic() + PATIENCE
    while status(pid).counter == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert status(pid).errors == 0
    assert vm.qmp.command("query-status")["running"] is True
    vm.console.wait(b"tick", len(vm.console.text))


def test_program_that_is_started_twice_runs_the_guest_once(vm: Vm, tmp_path: Path) -> None:
    report = update(vm, launcher(tmp_path, TWICE))
    assert (report["status"], report["owner"]) == ("completed", "new")
    vm.until_said(b"another program has taken over: this one was too slow")
    goes_on(vm, report["new-pid"])


def test_program_that_is_started_again_later_does_not_go_on_with_a_stale_state(
    vm: Vm, tmp_path: Path
) -> None:
    report = update(vm, launcher(tmp_path, AGAIN))
    assert report["status"] == "completed"
    goes_on(vm, report["new-pid"])
    last = status(report["new-pid"])
    watched = os.open(memory(report["new-pid"]) or "", os.O_RDONLY)
    os.kill(report["new-pid"], 9)
    vm.until_said(b"another program has taken over: this one was too slow")
    after = read_status(os.pread(watched, STATUS_SIZE, STATUS_ADDRESS - (1 << 31)))
    os.close(watched)
    assert after.errors == last.errors == 0


@pytest.mark.parametrize("how", LEAVES)
def test_guardian_starts_the_old_program_beside_what_a_launcher_left(
    vm: Vm, tmp_path: Path, how: str
) -> None:
    report = update(vm, launcher(tmp_path, LEAVES[how]))
    assert (report["status"], report["owner"]) == ("failed", "old-by-guardian")
    goes_on(vm, report["new-pid"])
    assert update(vm, PROGRAM)["status"] == "completed"
    goes_on(vm, report["new-pid"])
