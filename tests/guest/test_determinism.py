"""With -icount a run that is updated at any instruction ends bit for bit like one that never was."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from harness import Vm
from instar.cpu.rv64.asm import assemble

RTC = ("-rtc", "base=2026-01-01T00:00:00,clock=vm")


def break_at(vm: Vm, icount: int) -> None:
    """Run until exactly ``icount`` instructions were executed."""
    vm.qmp.command("replay-break", icount=icount)
    vm.qmp.command("cont")
    vm.qmp.wait_event("STOP")
    assert vm.qmp.command("query-replay")["icount"] == icount


def fingerprint(vm: Vm, size: int) -> tuple[str, str, bytes]:
    """Hashes of RAM and registers, and everything that was printed."""
    ram = hashlib.sha256(vm.guest_memory(0x8000_0000, size << 20)).hexdigest()
    registers = vm.qmp.command("human-monitor-command", **{"command-line": "info registers -a"})
    vm.console.pull_all()
    return ram, hashlib.sha256(registers.encode()).hexdigest(), vm.console.text


def run(extra: list[str], size: int, end: int, updates: list[int]) -> tuple[str, str, bytes]:
    with Vm(*extra, "-icount", "shift=3,sleep=off", *RTC, "-S", size=size) as vm:
        for icount in updates:
            break_at(vm, icount)
            vm.update()
        break_at(vm, end)
        return fingerprint(vm, size)


@pytest.mark.parametrize("harts", [1, 3])
def test_ticker_updated_at_20_random_instructions_ends_the_same(ticker: Path, harts: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    end = 60_000_000
    updates = sorted(random.Random(seed).sample(range(1, end), 20))
    arguments = ["-kernel", str(ticker), "-smp", str(harts)]
    never = run(arguments, 64, end, [])
    assert b"tick 1" in never[2]
    assert run(arguments, 64, end, updates) == never


def test_linux_updated_at_20_random_instructions_ends_the_same(debian, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    end = 700_000_000  # well into the start of the kernel's drivers
    updates = sorted(random.Random(seed).sample(range(1, end), 20))
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    arguments = [
        *debian.arguments("console=ttyS0 earlycon=sbi"),
        "-drive", f"file={disk},if=none,id=d0,format=raw", "-device", "virtio-blk-device,drive=d0",
    ]  # fmt: skip
    never = run(arguments, 256, end, [])
    assert b"Linux version" in never[2]
    assert run(arguments, 256, end, updates) == never


ALARM = """
    .equ RTC, 0x101000
    .equ PLIC, 0x0c000000
    li s1, RTC
    li t0, PLIC
    li t1, 1
    sw t1, 44(t0)           # priority of the RTC's interrupt, 11
    sw t1, 0x10(s1)         # the RTC's interrupt is enabled
    li t0, PLIC + 0x2080    # for this hart's supervisor mode
    li t1, 1 << 11
    sw t1, 0(t0)
    lw t2, 0(s1)
    lw t3, 4(s1)
    li t4, 50000000         # in 50 ms
    add t2, t2, t4
    sw t3, 12(s1)
    sw t2, 8(s1)
    li s0, 0
count:
    addi s0, s0, 1
    csrr t0, sip
    andi t0, t0, 0x200
    beqz t0, count
end:
    j end
"""


def test_alarm_of_the_clock_rings_at_the_same_instruction_with_and_without_updates(
    tmp_path: Path,
) -> None:
    guest = tmp_path / "guest.bin"
    guest.write_bytes(assemble(ALARM, origin=0x80200000).image)
    end = 10_000_000  # 80 ms
    never = run(["-kernel", str(guest)], 64, end, [])
    assert run(["-kernel", str(guest)], 64, end, []) == never
    assert run(["-kernel", str(guest)], 64, end, [3_000_000, 6_000_000]) == never
