"""What a flush confirmed stays, whatever ends the monitor; what was under way at an update happens once."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from harness import Vm

DRIVE = "if=none,id=d0,format=raw"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    return path


def guest(debian, disk: Path, append: str) -> Vm:
    return Vm(
        *debian.arguments(f"console=ttyS0 quiet {append}"),
        "-drive", f"file={disk},{DRIVE}", "-device", "virtio-blk-device,drive=d0", size=192,
    )  # fmt: skip


def numbers(vm: Vm, word: bytes) -> list[int]:
    """The numbers that the guest said after ``word``, in complete lines."""
    return [int(n) for n in re.findall(rb"%s (\d+)\r" % word, vm.console.text)]


def shell(vm: Vm, line: str) -> bytes:
    vm.console.pull_all()
    start = len(vm.console.text)
    vm.console.send(line.encode() + b"\necho 'e''nd'\n")
    end = vm.console.wait(b"end\r\n", start)
    return vm.console.text[start:end]


def test_power_cut_loses_nothing_that_a_flush_confirmed(debian, disk: Path) -> None:
    with guest(debian, disk, "instar.logverify=write") as vm:
        vm.console.wait(b"SYNCED 8\r")
        vm.update()
        vm.console.wait(b"SYNCED 16\r")
        vm.process.send_signal(signal.SIGKILL)
        vm.wait_exit()
        safe = max(numbers(vm, b"SYNCED"))
    with guest(debian, disk, "instar.logverify=check") as vm:
        vm.console.wait(b"\r", vm.console.wait(b"LOG "))
        assert numbers(vm, b"LOG")[0] >= safe


def test_requests_of_20_updates_under_load_complete_exactly_once(debian, disk: Path) -> None:
    with guest(debian, disk, "") as vm:
        vm.console.wait(b"instar-guest:")
        pid = vm.process.pid
        shell(
            vm,
            "for n in 1 2; do dd if=/dev/vda of=/dev/null bs=4k iflag=direct & done 2>/dev/null",
        )
        shell(
            vm, "while :; do dd if=/dev/zero of=/dev/vda bs=16k oflag=direct; done 2>/dev/null &"
        )
        for _ in range(20):
            assert vm.update()["status"] == "completed"
        assert vm.process.pid == pid
        shell(vm, "kill %3; killall dd; wait")
        text = shell(vm, "cat /sys/block/vda/stat")
        seen = [int(n) for n in re.search(rb"\n((?: +\d+){17})", text)[1].split()]
        (drive,) = vm.qmp.command("query-blockstats")
        stats = drive["stats"]
        assert stats["wr_operations"] > 20
        assert stats["rd_operations"] == seen[0]
        assert stats["wr_operations"] + stats["flush_operations"] == seen[4]  # Linux counts both
        assert (stats["rd_bytes"], stats["wr_bytes"]) == (seen[2] * 512, seen[6] * 512)
        assert stats["failed_wr_operations"] == stats["failed_rd_operations"] == 0


def test_resized_disk_is_seen_by_the_guest_and_after_an_update(debian, disk: Path) -> None:
    with guest(debian, disk, "") as vm:
        vm.console.wait(b"instar-guest:")
        vm.qmp.command("block_resize", device="d0", size=96 << 20)
        assert b"\n%d\r" % (96 << 20) in shell(vm, "blockdev --getsize64 /dev/vda")
        vm.update()
        vm.qmp.command("human-monitor-command", command_line="block_resize d0 32")
        assert b"\n%d\r" % (32 << 20) in shell(vm, "blockdev --getsize64 /dev/vda")
        assert disk.stat().st_size == 32 << 20
