"""Discards and zeroed ranges, new sizes and failing reads on files and block devices, while updates happen."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Vm
from instar.cpu.rv64.asm import assemble

KIB = 1024
MIB = 1 << 20
PART = 64 * KIB  # zeroed, punched out, discarded, and left alone, in this order
FALLOCATE_PUNCH, FALLOCATE_ZERO = 3, 0x10  # FALLOC_FL_PUNCH_HOLE | KEEP_SIZE, FALLOC_FL_ZERO_RANGE
LOAD = 0x10000


def fallocate_program(mode: int, offset: int) -> bytes:
    """A riscv64 program that changes PART bytes of /dev/vda; its exit status is the errno."""
    start = LOAD + 64 + 56
    text = assemble(
        f"""
            li a0, -100
            la a1, path
            li a2, 2
            li a3, 0
            li a7, 56       # openat
            ecall
            li a1, {mode}
            li a2, {offset}
            li a3, {PART}
            li a7, 47       # fallocate
            ecall
            neg a0, a0
            li a7, 93       # exit
            ecall
        path:
            .asciz "/dev/vda"
        """,
        start,
    ).image
    size = 64 + 56 + len(text)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 2, 243, 1, start, 64, 0, 5, 64, 56, 1, 64, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, LOAD, LOAD, size, size, 4096)
    return (header + segment + text).ljust(KIB, b"\0")


def shell(vm: Vm, line: str) -> bytes:
    vm.console.pull(0)
    start = len(vm.console.text)
    vm.console.send(line.encode() + b"\necho 'e''nd'\n")
    end = vm.console.wait(b"end\r\n", start)
    return vm.console.text[start:end]


def drive(number: int, path: str, *more: str) -> list[str]:
    options = ",".join([f"file={path},if=none,id=d{number},format=raw", *more])
    return ["-drive", options, "-device", f"virtio-blk-device,drive=d{number}"]


def stats(vm: Vm) -> dict:
    return vm.qmp.command("query-blockstats")[0]["stats"]


def can_loop() -> bool:
    return os.geteuid() == 0 and os.path.exists("/dev/loop-control")


needs_loop = pytest.mark.skipif(not can_loop(), reason="loop devices need root")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.touch()
    os.truncate(path, 8 * MIB)
    return path


@pytest.fixture
def loop(image: Path) -> Iterator[str]:
    """A block device of the host over the image."""
    made = subprocess.run(
        ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True
    )
    device = made.stdout.strip()
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


def check_ranges(debian, path: str, programs: Path) -> None:
    programs.write_bytes(
        fallocate_program(FALLOCATE_ZERO, 0) + fallocate_program(FALLOCATE_PUNCH, PART)
    )
    prepare = (
        "cd /tmp; for n in 0 1; do dd if=/dev/vdb of=p$n bs=1k skip=$n count=1; chmod +x p$n; done 2>/dev/null;"
        " yes | head -c 262144 >ones; (head -c 196608 /dev/zero; yes | head -c 65536) >want"
    )
    work = (
        "(n=0; while [ ! -e off ]; do n=$((n+1)); dd if=ones of=/dev/vda bs=64k oflag=direct 2>/dev/null;"
        " ./p0 && ./p1 && blkdiscard -o 131072 -l 65536 /dev/vda || echo FAIL''ED;"
        " dd if=/dev/vda of=have bs=64k count=4 iflag=direct 2>/dev/null; cmp have want || echo DIF''FER;"
        " echo ROUND $n; done; echo OF''F) &"
    )
    with Vm(
        *debian.arguments("console=ttyS0 quiet"),
        *drive(0, path, "discard=unmap"), *drive(1, str(programs), "readonly=on"), size=192,
    ) as vm:  # fmt: skip
        vm.console.wait(b"instar-guest:")
        shell(vm, prepare)
        vm.console.send(work.encode() + b"\n")
        vm.console.wait(b"ROUND 1\r")
        for _ in range(3):
            assert vm.update()["status"] == "completed"
        start = len(vm.console.text)
        vm.console.wait(b"ROUND", start)
        vm.console.send(b"touch off\n")
        vm.console.wait(b"OFF\r", start)
        assert not re.search(rb"FAILED|DIFFER|differ", vm.console.text)
        rounds = int(re.findall(rb"ROUND (\d+)\r", vm.console.text)[-1])
        counted = stats(vm)
        assert counted["unmap_operations"] == rounds
        # four pieces of data, and one request to zero each of two ranges
        assert (counted["wr_operations"], counted["wr_bytes"]) == (6 * rounds, 6 * PART * rounds)
        assert counted["failed_wr_operations"] == counted["failed_unmap_operations"] == 0


def test_discard_and_write_zeroes_reach_a_file_while_it_is_updated(
    debian, image: Path, tmp_path: Path
) -> None:
    check_ranges(debian, str(image), tmp_path / "programs")
    fd = os.open(image, os.O_RDONLY)
    hole = os.lseek(fd, PART, os.SEEK_HOLE)
    data = os.lseek(fd, hole, os.SEEK_DATA)
    os.close(fd)
    assert (hole, data) == (PART, 3 * PART)  # given back to the host


@needs_loop
def test_discard_and_write_zeroes_reach_a_block_device_while_it_is_updated(
    debian, loop: str, tmp_path: Path
) -> None:
    check_ranges(debian, loop, tmp_path / "programs")


def test_disk_gets_new_sizes_under_traffic_between_updates(debian, image: Path) -> None:
    with Vm(*debian.arguments("console=ttyS0 quiet"), *drive(0, str(image)), size=192) as vm:
        vm.console.wait(b"instar-guest:")
        shell(
            vm,
            "while :; do dd if=/dev/vda of=/dev/null bs=16k count=512 iflag=direct; done 2>/dev/null &",
        )
        shell(
            vm,
            "while :; do dd if=/dev/zero of=/dev/vda bs=16k count=512 oflag=direct; done 2>/dev/null &",
        )
        for size in (12 * MIB, 9 * MIB, 8 * MIB):
            before = stats(vm)["wr_operations"]
            vm.qmp.command("block_resize", device="d0", size=size)
            assert vm.update()["status"] == "completed"
            assert b"\n%d\r" % size in shell(vm, "blockdev --getsize64 /dev/vda")
            assert image.stat().st_size == size
            while stats(vm)["wr_operations"] == before:
                vm.console.pull(0.05)
        counted = stats(vm)
        assert counted["failed_wr_operations"] == counted["failed_rd_operations"] == 0
        assert b"I/O error" not in shell(vm, "dmesg")


@needs_loop
def test_failed_read_is_tried_again_when_the_host_is_repaired_after_updates(
    debian, image: Path, loop: str
) -> None:
    image.write_bytes(bytes(4 * MIB) + b"instar: data\n".ljust(4 * MIB, b"\0"))
    saved = image.read_bytes()
    rule = ("rerror=stop",)
    with Vm(*debian.arguments("console=ttyS0 quiet"), *drive(0, loop, *rule), size=192) as vm:
        vm.console.wait(b"instar-guest:")
        shell(
            vm,
            "while :; do dd if=/dev/zero of=/dev/vda bs=16k count=64 oflag=direct; done 2>/dev/null &",
        )
        start = len(vm.console.text)
        os.truncate(image, 4 * MIB)  # the device keeps its size; what is missing cannot be read
        vm.console.send(b"dd if=/dev/vda bs=4k skip=1024 count=1 iflag=direct | head -n 1\n")
        event = vm.qmp.wait_event("BLOCK_IO_ERROR")["data"]
        assert (event["operation"], event["action"], event["nospace"]) == ("read", "stop", False)
        vm.qmp.wait_event("STOP")
        for _ in range(3):
            assert vm.update()["status"] == "completed"
            assert vm.qmp.command("query-status")["status"] == "io-error"
        with image.open("r+b") as file:
            file.seek(4 * MIB)
            file.write(saved[4 * MIB :])
        vm.qmp.command("cont")
        vm.console.wait(b"instar: data", start)
        assert vm.update()["status"] == "completed"
        assert stats(vm)["failed_wr_operations"] == 0
        assert b"I/O error" not in shell(vm, "dmesg")
