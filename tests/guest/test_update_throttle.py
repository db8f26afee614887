"""A throttled disk: what is held back crosses updates and is done once, and no update gives the guest a new burst."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import Vm

SIZE = 64 << 20
RATE = 64 << 10  # bytes a second of the guest's clock
BURST = 1 << 20
BLOCK = 64 << 10


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


def guest(debian, disk: Path, limits: str) -> Vm:
    return Vm(
        *debian.arguments("console=ttyS0 quiet"),
        "-drive", f"file={disk},if=none,id=d0,format=raw,{limits}",
        "-device", "virtio-blk-device,drive=d0,id=blk", size=192,
    )  # fmt: skip


def shell(vm: Vm, line: str) -> bytes:
    vm.console.pull_all()
    start = len(vm.console.text)
    vm.console.send(line.encode() + b"\necho 'e''nd'\n")
    end = vm.console.wait(b"end\r\n", start)
    return vm.console.text[start:end]


def limits(vm: Vm) -> dict:
    (drive,) = vm.qmp.command("query-block")
    return drive["inserted"]


def stats(vm: Vm) -> dict:
    (drive,) = vm.qmp.command("query-blockstats")
    return drive["stats"]


def uptime(vm: Vm) -> float:
    """The guest's clock, which is virtual time."""
    return float(re.search(rb"\n(\d+\.\d+) ", shell(vm, "cat /proc/uptime"))[1])


def test_requests_held_back_do_not_keep_20_updates_waiting_and_are_done_once(
    debian, disk: Path
) -> None:
    with guest(debian, disk, "throttling.bps-write=1") as vm:
        vm.console.wait(b"instar-guest:")
        write = (
            "for n in 1 2 3 4; do (tr '\\0' $n </dev/zero | dd of=/dev/vda bs=64k count=8 seek=$((8*n))"
            " iflag=fullblock oflag=direct 2>/dev/null; echo WRIT''TEN) & done 2>/dev/null"
        )
        shell(vm, write)
        assert b"end" in shell(vm, "dd if=/dev/vda of=/dev/null bs=64k count=1 iflag=direct")
        for _ in range(20):
            assert vm.update()["status"] == "completed"
        assert stats(vm)["wr_operations"] == 1  # it emptied the bucket for 18 hours
        assert (limits(vm)["bps_wr"], limits(vm)["group"]) == (1, "d0")
        start = len(vm.console.text)
        hmp = "block_set_io_throttle d0 0 0 0 0 0 0"
        assert vm.qmp.command("human-monitor-command", command_line=hmp) == ""
        for _ in range(4):
            start = vm.console.wait(b"WRITTEN", start)
        vm.update()
        assert limits(vm)["bps_wr"] == 0  # although the command line says 1
        assert "group" not in limits(vm)
        shell(vm, "sync")
        with disk.open("rb") as file:
            parts = [file.read(8 * BLOCK) for _ in range(5)]
        assert parts == [bytes(8 * BLOCK), *(b"%d" % n * (8 * BLOCK) for n in (1, 2, 3, 4))]
        seen = re.search(rb"\n((?: +\d+){17})", shell(vm, "cat /sys/block/vda/stat"))[1].split()
        counted = stats(vm)
        assert counted["wr_operations"] + counted["flush_operations"] == int(seen[4])
        assert counted["wr_bytes"] == int(seen[6]) * 512 == 32 * BLOCK


def test_limit_and_burst_count_on_through_20_updates_under_load(debian, disk: Path) -> None:
    keys = f"throttling.bps-write={RATE},throttling.bps-write-max={BURST},throttling.group=g"
    with guest(debian, disk, keys) as vm:
        vm.console.wait(b"instar-guest:")
        before = uptime(vm)
        shell(
            vm,
            "while :; do dd if=/dev/zero of=/dev/vda bs=64k count=1k oflag=direct; done 2>/dev/null &",
        )
        while stats(vm)["wr_bytes"] < BURST:
            vm.console.pull(0.05)
        for _ in range(20):
            assert vm.update()["status"] == "completed"
        written = stats(vm)["wr_bytes"]
        after = uptime(vm)
        # Half a burst for what was under way; if an update emptied the bucket, it would be up to 20 of them.
        assert BURST < written <= RATE * (after - before) + 1.5 * BURST
        assert limits(vm)["bps_wr_max"] == BURST
        assert limits(vm)["group"] == "g"
        assert (
            b"group=g"
            in vm.qmp.command("human-monitor-command", command_line="info block").encode()
        )


def run_counted(debian, disk: Path, updates: int) -> bytes:
    """What the guest says when it counts instructions for a clock; the updates happen while requests are held back."""
    append = (
        'console=ttyS0 quiet instar.run="cat /proc/uptime; echo BEGUN;'
        ' dd if=/dev/vda of=/dev/null bs=4k count=600 iflag=direct; cat /proc/uptime"'
    )
    with Vm(
        *debian.arguments(append), "-icount", "shift=3,sleep=off", "-seed", "1",
        "-rtc", "base=2026-01-01,clock=vm",
        "-drive", f"file={disk},if=none,id=d0,format=raw,throttling.iops-read=20",
        "-device", "virtio-blk-device,drive=d0", size=192,
    ) as vm:  # fmt: skip
        vm.console.wait(b"BEGUN")
        for _ in range(updates):
            assert vm.update()["status"] == "completed"
        end = vm.console.wait(b"RUN status 0\r")
        return vm.console.text[:end]


def test_throttled_disk_is_deterministic_with_counted_instructions_and_updates(
    debian, disk: Path
) -> None:
    undisturbed = run_counted(debian, disk, 0)
    begin, end = (float(n) for n in re.findall(rb"(\d+\.\d+) \d+\.\d+\r", undisturbed))
    assert end - begin == pytest.approx((600 - 3) / 20, abs=0.5)  # seconds of the guest's clock
    assert run_counted(debian, disk, 2) == undisturbed
