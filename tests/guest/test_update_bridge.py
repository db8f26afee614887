"""``-machine x-update-bridge=on``: the guest computes on while one monitor becomes another."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from pathlib import Path

import pytest

from harness import Vm
from instar.image.ticker import (
    STATUS_ADDRESS,
    STATUS_SIZE,
    TickerStatus,
    read_status,
    ticker_image,
)

BRIDGE = ("-machine", "x-update-bridge=on")
RTC = ("-rtc", "base=2026-01-01T00:00:00,clock=vm")


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guest that never sleeps."""
    path = tmp_path_factory.mktemp("busy") / "busy.bin"
    path.write_bytes(ticker_image({"TICK_EVERY": 10, "BUSY": 1}))
    return path


def status(vm: Vm) -> TickerStatus:
    return read_status(vm.guest_memory(STATUS_ADDRESS, STATUS_SIZE))


def update(vm: Vm) -> dict:
    """Update by the command that is made from what runs; returns the report."""
    capability = {"capability": "events", "state": True}
    vm.qmp.command("migrate-set-capabilities", capabilities=[capability])
    vm.qmp.events.clear()
    vm.qmp.command("x-update")
    while True:
        event = vm.qmp.next_event()
        if event["event"] in ("UPDATE_COMPLETED", "UPDATE_FAILED"):
            assert event["data"]["status"] == "completed", event["data"]
            return event["data"]


class Watcher:
    """Looks at the guest's counter from outside, all the time."""

    def __init__(self, vm: Vm) -> None:
        self.seen: list[tuple[int, int]] = []  # (host time in microseconds, counter)
        self._vm = vm
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._done.is_set():
            self.seen.append((time.time_ns() // 1000, status(self._vm).counter))
            time.sleep(0.0005)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def between(self, start_us: int, end_us: int) -> set[int]:
        """The values of the counter at that time."""
        return {counter for at, counter in self.seen if start_us < at < end_us}


def microseconds(event: dict) -> int:
    stamp = event["timestamp"]
    return stamp["seconds"] * 1_000_000 + stamp["microseconds"]


def test_guest_computes_on_while_it_has_no_monitor(busy: Path) -> None:
    with Vm("-kernel", str(busy), *BRIDGE) as vm:
        vm.console.wait(b"tick 1")
        uri = vm.prepare_update()
        with Watcher(vm) as watcher:
            vm.qmp.command("migrate", uri=uri)
            stop, resume = (vm.qmp.wait_event(name) for name in ("STOP", "RESUME"))
        assert len(watcher.between(microseconds(stop), microseconds(resume))) > 2
        report = vm.qmp.command("query-migrate")["x-update"]
        assert report["pause-us"] < report["device-pause-us"]
        assert "notes" not in report
        assert status(vm).errors == 0


@pytest.mark.parametrize("harts", ["1", "3"])
def test_5_updates_lose_nothing_and_leave_nothing(busy: Path, harts: str) -> None:
    with Vm("-kernel", str(busy), *BRIDGE, "-smp", harts) as vm:
        vm.console.wait(b"tick 1")
        assert "device-pause-us" in update(vm)
        footprint = vm.footprint()
        for _ in range(5):
            counter = status(vm).counter
            assert "device-pause-us" in update(vm)
            assert status(vm).counter > counter
        assert vm.footprint() == footprint
        vm.console.send(b"hello\r")
        vm.console.wait(b"hello", vm.console.wait(b"tick", len(vm.console.text)))
        assert status(vm).errors == 0


def test_guest_that_sleeps_is_woken_by_its_timer_on_the_bridge(ticker: Path) -> None:
    with Vm("-kernel", str(ticker), *BRIDGE) as vm:
        vm.console.wait(b"tick 1")
        for _ in range(5):
            assert "device-pause-us" in update(vm)
        vm.console.wait(b"tick", len(vm.console.text))
        assert status(vm).errors == 0


def fingerprint(vm: Vm, size: int) -> tuple[str, str, bytes]:
    """Hashes of RAM and registers, and everything that was printed."""
    ram = hashlib.sha256(vm.guest_memory(0x8000_0000, size << 20)).hexdigest()
    registers = vm.qmp.command("human-monitor-command", **{"command-line": "info registers -a"})
    vm.console.pull_all()
    return ram, hashlib.sha256(registers.encode()).hexdigest(), vm.console.text


def run(extra: list[str], size: int, end: int, updates: int) -> tuple[tuple[str, str, bytes], int]:
    """Run to an instruction count with updates on the way, at whatever instruction they come; tell how many bridged."""
    bridged = 0
    with Vm(*extra, "-icount", "shift=3,sleep=off", *RTC, *BRIDGE, "-S", size=size) as vm:
        vm.qmp.command("replay-break", icount=end)
        vm.qmp.command("cont")
        for _ in range(updates):
            time.sleep(random.random() / 10)
            bridged += "device-pause-us" in update(vm)
        while vm.qmp.command("query-status")["running"]:
            time.sleep(0.05)
        assert vm.qmp.command("query-replay")["icount"] == end
        return fingerprint(vm, size), bridged


def ends_alike(arguments: list[str], size: int, end: int, said: bytes) -> None:
    """A run over bridges ends as one without updates, which has said something by then."""
    never, _ = run(arguments, size, end, 0)
    assert said in never[2]
    crossed, bridged = run(arguments, size, end, 3)
    assert bridged > 0
    assert crossed == never


@pytest.mark.parametrize("harts", ["1", "3"])
def test_busy_guest_that_crosses_bridges_ends_like_one_that_never_did(
    busy: Path, harts: str
) -> None:
    ends_alike(["-kernel", str(busy), "-smp", harts], 64, 800_000_000, b"tick 1")


def test_linux_that_crosses_bridges_ends_like_one_that_never_did(debian, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    arguments = [
        *debian.arguments("console=ttyS0 earlycon=sbi"),
        "-drive", f"file={disk},if=none,id=d0,format=raw", "-device", "virtio-blk-device,drive=d0",
    ]  # fmt: skip
    ends_alike(arguments, 256, 900_000_000, b"Linux version")


def test_linux_under_disk_load_crosses_5_bridges(debian, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    with Vm(
        *debian.arguments("console=ttyS0 quiet instar.logverify=write"), *BRIDGE,
        "-drive", f"file={disk},if=none,id=d0,format=raw", "-device", "virtio-blk-device,drive=d0", size=192,
    ) as vm:  # fmt: skip
        vm.console.wait(b"SYNCED 8\r")
        for _ in range(5):
            assert "device-pause-us" in update(vm)
        vm.console.wait(b"SYNCED", len(vm.console.text))
        assert not [w for w in (b"stall", b"I/O error", b"hung") if w in vm.console.text]
