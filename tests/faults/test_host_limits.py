"""A host without room for the state, and a person who is impatient; descriptors and memory: test_matrix.py."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from harness import PATIENCE, QmpError, Vm

TMPFS = (
    "unshare", "-Urm", "sh", "-c", 'mount -t tmpfs -o size=128K t "$0" && exec "$@"',
)  # fmt: skip


def test_file_system_without_room_for_the_state_refuses_before_the_guest_stops(
    ticker: Path, tmp_path: Path
) -> None:
    place = tmp_path / "small"
    place.mkdir()
    with Vm("-kernel", str(ticker), wrapper=(*TMPFS, str(place))) as vm:
        vm.console.wait(b"tick 1")
        before = vm.footprint()
        with pytest.raises(QmpError, match="No space left on device"):
            vm.update(uri=f"file:{place}/vm.state")
        assert "STOP" not in [event["event"] for event in vm.qmp.events]
        assert os.listdir(f"/proc/{vm.process.pid}/root{place}") == []
        assert vm.footprint() == before
        vm.console.wait(b"tick", len(vm.console.text))
        assert vm.update()["status"] == "completed"


def descendants(pid: int) -> list[int]:
    """All processes that the process has started, and those that they have."""
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has just ended
        return []
    children = [int(word) for word in words]
    return [*children, *(pid for child in children for pid in descendants(child))]


@pytest.mark.parametrize("phase", ["rehearse", "stop"])
def test_two_interrupts_in_an_update_end_the_program_and_all_that_it_has_started(
    ticker: Path, phase: str
) -> None:
    with Vm("-kernel", str(ticker)) as vm:
        vm.console.wait(b"tick 1")
        uri = vm.prepare_update()
        vm.qmp.command("migrate", uri=uri)
        vm.qmp.wait_event("UPDATE_PHASE", phase=phase)
        started = descendants(vm.process.pid)
        for _ in range(2):
            os.kill(vm.process.pid, signal.SIGINT)
        assert vm.wait_exit() == 0
        assert "Traceback" not in vm.said()
        deadline = time.monotonic() + PATIENCE
        while any(runs(pid) for pid in started):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def runs(pid: int) -> bool:
    """Whether the process is there, and no zombie that init has not come to yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
