"""A guest is handed over to a program that was started beside the one that has it."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from conftest import Debian
from harness import Qmp, QmpError, Vm
from tickers import Ticker, status
from transfer_pair import Pair, hand_over

BAD = re.compile(rb"stall|hung task|I/O error|blocked for more than|Oops|BUG:|DISK ERROR")
TICK = re.compile(rb"tick (\d+)\r?\n")


def last_tick(vm: Vm) -> int:
    vm.console.pull_all()
    return int(TICK.findall(vm.console.text)[-1])


def next_tick(vm: Vm) -> int:
    start = vm.console.wait(b"\n", len(vm.console.text))
    vm.console.wait(b"\n", start + 1)
    return int(TICK.findall(vm.console.text, start)[0])


@pytest.fixture
def pair(guest: Ticker):
    with guest.vm() as vm:
        vm.console.wait(b"tick 3")
        yield Pair(vm)


def test_transfer_guest_goes_on_in_the_target_and_never_again_in_the_source(pair: Pair) -> None:
    with pair.target() as target:
        done = pair.transfer()
        assert done["status"] == "completed"
        assert done["x-update"]["mode"] == "cpr-transfer"
        target.connect()
        assert target.qmp.command("query-migrate")["status"] == "completed"
        assert target.qmp.command("query-status")["running"] is True
        before = last_tick(pair.vm)
        assert before < next_tick(target) < before + 100
        assert pair.vm.qmp.command("query-status")["status"] == "postmigrate"
        for command in ("cont", "system_reset"):
            with pytest.raises(QmpError, match=f"process {target.process.pid}.* never runs here"):
                pair.vm.qmp.command(command)
        target.console.wait(b"tick", len(target.console.text))
        target.qmp.command("quit")
        target.wait_exit()
        with pytest.raises(QmpError, match="never runs here again"):
            pair.vm.qmp.command("cont")


def mapped(pid: int) -> int:
    """How many bytes of guest memory a process has mapped and in its page tables."""
    maps = Path(f"/proc/{pid}/smaps").read_text()
    found = re.findall(r"/memfd:memory-backend.*?^Rss:\s+(\d+) kB", maps, re.M | re.S)
    return sum(1024 * int(size) for size in found)


def test_target_has_the_memory_mapped_before_the_guest_stops(pair: Pair) -> None:
    while not status(pair.vm).checks:  # it has been all over its window: no pages come any more
        pair.vm.console.wait(b"tick", len(pair.vm.console.text))
    capabilities = [{"capability": "pause-before-switchover", "state": True}]
    pair.vm.qmp.command("migrate-set-capabilities", capabilities=capabilities)
    with pair.target() as target:
        pair.vm.qmp.events.clear()
        pair.migrate()
        pair.vm.qmp.wait_event("MIGRATION", status="pre-switchover")
        assert mapped(target.process.pid) == mapped(pair.vm.process.pid) > 0
        pair.vm.qmp.command("migrate-continue", state="pre-switchover")
        pair.vm.qmp.wait_event("MIGRATION", status="completed")


def told(qmp: Qmp) -> list[tuple[str, str]]:
    """The events of ours up to the last one, as (name or phase, status)."""
    found: list[tuple[str, str]] = []
    while not found or found[-1][0] == "phase":
        event = qmp.next_event()
        data = event.get("data", {})
        if event["event"] == "UPDATE_PHASE":
            found.append(("phase", f"{data['phase']} {data['status']}"))
        elif event["event"].startswith("UPDATE_"):
            found.append((event["event"], data["status"]))
    return found


def phases(*names: str) -> list[tuple[str, str]]:
    return [("phase", f"{name} {status}") for name in names for status in ("begun", "done")]


def test_both_programs_tell_phases_and_end_of_a_transfer(pair: Pair) -> None:
    on = [{"capability": "events", "state": True}]
    pair.vm.qmp.events.clear()
    with pair.target(incoming="defer") as target:
        pair.migrate()
        target.connect().qmp.command("migrate-set-capabilities", capabilities=on)
        target.qmp.command("migrate-incoming", channels=[pair.channels[0]])
        source = ("prepare", "rehearse", "stop", "save", "load", "settle")
        assert told(pair.vm.qmp) == [*phases(*source), ("UPDATE_COMPLETED", "completed")]
        assert told(target.qmp) == [*phases("load", "resume"), ("UPDATE_COMPLETED", "completed")]
        for vm in (pair.vm, target):
            report = vm.qmp.command("query-migrate")["x-update"]
            assert (report["mode"], report["owner"]) == ("cpr-transfer", "new")
            assert report["old-pid"] == pair.vm.process.pid
            assert report["new-pid"] == target.process.pid
            assert report["pause-us"] > 0


def test_failed_transfer_is_told_as_one(pair: Pair) -> None:
    pair.vm.qmp.events.clear()
    with pair.target("-smp", "2"):
        pair.migrate()
        expected = [*phases("prepare"), ("phase", "rehearse begun"), ("phase", "rehearse failed")]
        assert told(pair.vm.qmp) == [*expected, ("UPDATE_FAILED", "refused")]
    report = pair.vm.qmp.command("query-migrate")["x-update"]
    assert (report["status"], report["owner"]) == ("refused", "old")
    assert "the target refused: -smp" in report["reason"]


def test_main_channel_may_be_tcp(pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pair.main_address = {
        "transport": "socket", "type": "inet", "host": "127.0.0.1", "port": str(port),
    }  # fmt: skip
    with pair.target(incoming=f"tcp:127.0.0.1:{port}") as target:
        assert pair.transfer()["status"] == "completed"
        target.connect().console.wait(b"tick")
        assert target.qmp.command("query-status")["running"] is True


def test_debian_goes_from_program_to_program_under_disk_load(
    debian: Debian, tmp_path: Path
) -> None:
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    vm = Vm(
        *debian.arguments("console=ttyS0 quiet instar.diskverify"),
        "-drive", f"file={disk},if=none,id=d0,format=raw", "-device", "virtio-blk-device,drive=d0", size=256,
    )  # fmt: skip
    try:
        vm.console.wait(b"DISK OK")
        for _ in range(4):
            vm = hand_over(vm)
            vm.console.wait(b"DISK OK", vm.console.wait(b"DISK OK"))  # the second was begun here
            assert not BAD.search(vm.console.text), BAD.search(vm.console.text)
        vm.update()
        vm.console.wait(b"DISK OK", len(vm.console.text))
        assert not BAD.search(vm.console.text), BAD.search(vm.console.text)
    finally:
        vm.close()
