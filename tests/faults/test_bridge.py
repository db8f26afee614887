"""A bridge whose ends break: the guest goes on, with the monitor that is left."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from faulty import faulty
from harness import PATIENCE, PROGRAM, Vm
from instar.image.ticker import STATUS_ADDRESS, STATUS_SIZE, read_status

NO_BRIDGE = {
    "ends at once": "import os\nif 'INSTAR_CPR_BRIDGE' in os.environ: os._exit(1)\n",
    "raises": "import instar.cli.bridge as b\n"
    "def bad(*a): raise RuntimeError('boom')\nb._make = bad\n",
    "refuses the harts": "import instar.cli.bridge as b\nfrom instar.errors import HostError\n"
    "def bad(*a): raise HostError('no room')\nb.Helper._load = bad\n",
    "ends when it gets the harts": "import instar.cli.bridge as b, os\n"
    "def bad(*a): os._exit(0)\nb.Helper._load = bad\n",
}
INCOMING = "import instar.migration.incoming as i, os\n"
FAILS = {
    "before it asks": INCOMING
    + "def bad(*a): raise RuntimeError('boom')\ni.Incoming._end_bridge = bad\n",
    "when it has asked": INCOMING
    + "def bad(*a): raise RuntimeError('boom')\ni.Incoming._go = bad\n",
    "while it builds": "import instar.cli.system as s\n"
    "def bad(*a, **k): raise RuntimeError('boom')\n"
    "if 'INSTAR_CPR_STATE' in __import__('os').environ: s.assemble = bad\n",
}
LOST = INCOMING + "def bad(*a): os.kill(os.getpid(), 9)\ni.Incoming._go = bad\n"
UNDONE = (
    "import instar.migration.handover as h\n"
    "def bad(*a): raise OSError(28, 'No space left on device')\nh.Handover.prepare = bad\n"
)
KILLED = (
    INCOMING
    + "def bad(self, loaded):\n"
    + " os.kill(self._adopted.info['bridge'], 9)\n real(self, loaded)\n"
    + "real = i.Incoming._end_bridge\ni.Incoming._end_bridge = bad\n"
)


def start(ticker: Path, **more) -> Vm:
    vm = Vm("-kernel", str(ticker), "-machine", "x-update-bridge=on", **more)
    vm.console.wait(b"tick 1")
    vm.qmp.command(
        "migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}]
    )
    return vm


def ended(vm: Vm, **arguments) -> dict:
    """Try an update; returns what the event at its end tells."""
    vm.qmp.events.clear()
    vm.qmp.command("x-update", **arguments)
    while True:
        event = vm.qmp.next_event()
        if event["event"] in ("UPDATE_COMPLETED", "UPDATE_FAILED"):
            return event["data"]


def goes_on(vm: Vm, pid: int) -> None:
    """The guest runs, nothing in it is wrong, its console answers."""
    assert vm.qmp.command("query-status")["running"] is True
    for link in Path(f"/proc/{pid}/fd").iterdir():
        if "memory-backend-ram0" in os.readlink(link):
            with open(link, "rb") as file:
                status = read_status(
                    os.pread(file.fileno(), STATUS_SIZE, STATUS_ADDRESS - (1 << 31))
                )
    assert status.errors == 0
    vm.console.send(b"hello\r")
    vm.console.wait(b"hello", vm.console.wait(b"tick", len(vm.console.text)))


@pytest.mark.parametrize("fault", NO_BRIDGE)
def test_update_without_the_bridge_that_could_not_be(
    ticker: Path, tmp_path: Path, fault: str
) -> None:
    with start(ticker) as vm:
        footprint = vm.footprint()
        report = ended(vm, program=str(faulty(tmp_path, NO_BRIDGE[fault])))
        assert report["status"] == "completed", report
        (note,) = [note for note in report["notes"] if note.startswith("no bridge: ")]
        assert "the guest stands still a little longer" in note
        assert "device-pause-us" not in report
        goes_on(vm, vm.process.pid)
        after = vm.footprint()
        assert after["children"] == footprint["children"] == []


@pytest.mark.parametrize("fault", FAILS)
def test_old_program_gets_the_harts_back_when_the_new_one_fails(
    ticker: Path, tmp_path: Path, fault: str
) -> None:
    with start(ticker) as vm:
        assert ended(vm)["status"] == "completed"
        footprint = vm.footprint()
        report = ended(vm, program=str(faulty(tmp_path, FAILS[fault])))
        assert (report["status"], report["owner"]) == ("failed", "old")
        assert "boom" in report["reason"]
        assert report["old-pid"] == report["new-pid"] == vm.process.pid
        goes_on(vm, vm.process.pid)
        assert "device-pause-us" in ended(vm)
        assert vm.footprint() == footprint


def test_guardian_gets_the_harts_back_when_the_new_program_is_lost(
    ticker: Path, tmp_path: Path
) -> None:
    with start(ticker) as vm:
        report = ended(vm, program=str(faulty(tmp_path, LOST)))
        assert (report["status"], report["owner"]) == ("failed", "old-by-guardian")
        goes_on(vm, report["new-pid"])
        assert ended(vm)["status"] == "completed"
        vm.qmp.command("quit")


def test_harts_come_back_when_the_update_is_undone_before_exec(
    ticker: Path, tmp_path: Path
) -> None:
    with start(ticker, program=faulty(tmp_path, UNDONE)) as vm:
        footprint = vm.footprint()
        report = ended(vm, program=str(PROGRAM))
        assert (report["status"], report["owner"]) == ("failed", "old")
        assert "No space left on device" in report["reason"]
        goes_on(vm, vm.process.pid)
        assert vm.footprint() == footprint
        assert "No space left" in ended(vm, program=str(PROGRAM))["reason"]
        goes_on(vm, vm.process.pid)


def test_helper_that_is_killed_with_the_harts_is_told_and_leaves_nothing(
    ticker: Path, tmp_path: Path
) -> None:
    with start(ticker) as vm:
        uri = vm.prepare_update(program=faulty(tmp_path, KILLED))
        vm.qmp.command("migrate", uri=uri)
        assert vm.wait_exit() == 1
        assert "the bridge" in vm.said()
        mark = f"{vm.folder}/qmp".encode()
        deadline = time.monotonic() + PATIENCE
        while any(mark in words for words in command_lines()):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def command_lines() -> list[bytes]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                found.append(Path(f"/proc/{name}/cmdline").read_bytes())
            except OSError:
                continue
    return found
