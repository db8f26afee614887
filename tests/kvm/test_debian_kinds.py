"""Debian's amd64 kernel where less usual parts of the board and of KVM are used: each way it boots and works."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from harness import SLOWLY, Vm

pytestmark = pytest.mark.long

ZSTD = shutil.which("zstd")
LAB = Path(__file__).resolve().parents[2] / ".cache" / "lab"
# The lab's own; unlike the cloud's they read MP tables.
FULL_KERNELS = sorted(LAB.glob("*/kernel"))
WORDS = "console=ttyS0 quiet panic=-1"
SPLIT = ("-accel", "kvm,kernel-irqchip=split")


def start(debian, words: str, *more: str, size: int = 256) -> Vm:
    """Start Debian with two processors; its updates may take as long as the lab needs."""
    arguments = debian.arguments(f"{WORDS} {words}")
    vm = Vm("-machine", "microvm", "-smp", "2", *arguments, *more, size=size)
    vm.qmp.command("migrate-set-parameters", **{"x-update-timeout": 120_000} | SLOWLY)
    return vm


def unpacked(kernel: str) -> bytes:
    """Return the ELF image in a bzImage (Linux Documentation/arch/x86/boot.rst, payload_offset)."""
    data = Path(kernel).read_bytes()
    offset, length = struct.unpack_from("<II", data, 0x248)
    begin = (data[0x1F1] + 1) * 512 + offset
    packed = data[begin : begin + length - 4]  # after it comes its size
    return subprocess.run([str(ZSTD), "-dc"], input=packed, capture_output=True, check=True).stdout


@pytest.mark.skipif(
    not FULL_KERNELS, reason="no kernel that reads MP tables: the lab's own is one"
)
def test_without_acpi_processors_and_lines_are_found_by_the_mp_table(debian_amd64):
    """Not virtio: Debian's kernels look for its registers in ACPI only."""
    look = "echo CPUS $(nproc).; cat /proc/interrupts"
    more = ("-kernel", str(FULL_KERNELS[0]))
    with start(debian_amd64, f'acpi=off instar.run="{look}"', *more, size=512) as vm:
        vm.console.wait(b"RUN status 0")
        said = vm.console.text
    assert b"CPUS 2." in said
    for name in (b"IO-APIC", b"ttyS0", b"rtc0"):
        assert name in said


@pytest.mark.skipif(ZSTD is None, reason="no zstd: install zstd")
def test_kernel_is_entered_by_pvh(debian_amd64, tmp_path):
    vmlinux = tmp_path / "vmlinux"
    vmlinux.write_bytes(unpacked(debian_amd64.kernel))
    look = "echo CPUS $(nproc).; echo LOADER $(cat /proc/sys/kernel/bootloader_type)."
    more = ("-kernel", str(vmlinux))
    with start(debian_amd64, f'instar.run="{look}" instar.poweroff', *more, size=384) as vm:
        vm.console.wait(b"RUN status 0")
        assert b"CPUS 2." in vm.console.text
        assert b"LOADER 176." in vm.console.text  # what Linux sets itself to for PVH
        assert vm.wait_exit() == 0


def test_named_model_is_what_the_guest_sees_before_and_after_an_update(debian_amd64):
    look = "while read -r line; do grep -m 1 flags /proc/cpuinfo; echo END; done"
    # An emulated processor has no virtual 8086 mode with extensions.
    with start(debian_amd64, f'instar.run="{look}"', "-cpu", "x86-64-v3,-vme") as vm:
        vm.console.wait(b"INIT REACHED")
        vm.console.send(b"\n")
        first = vm.console.wait(b"END\r")
        vm.update()
        vm.console.send(b"\n")
        end = vm.console.wait(b"END\r", first)
        shown = vm.console.text[:first], vm.console.text[first:end]
    before, after = (set(text.partition(b"flags")[2].split()) for text in shown)
    assert before == after
    # Not AVX: in the lab, guests do without it (0013).
    assert {b"bmi1", b"bmi2", b"movbe", b"sse4_2"} <= before
    assert not {b"aes", b"rdrand", b"sse4a", b"vme"} & before  # the lab has the first three


def test_lines_of_an_ioapic_outside_the_kernel_work_again_and_again(debian_amd64):
    """The button's line is a level whose handler masks it before it acknowledges."""
    wait = "while [ $(wc -c < /tmp/keys) -lt $size ]; do sleep 1; done; echo PRESSED $size."
    watch = f"cat /dev/input/event0 > /tmp/keys & sleep 1; echo WATCHING; for size in 96 192 288; do {wait}; done"
    with start(debian_amd64, f'instar.run="{watch}" instar.poweroff', *SPLIT) as vm:
        vm.console.wait(b"WATCHING")
        vm.qmp.command("system_powerdown")
        vm.console.wait(b"PRESSED 96.")  # four events: the key goes down and up, each with its end
        vm.qmp.command("system_powerdown")
        vm.console.wait(b"PRESSED 192.")
        vm.update()
        vm.qmp.command("system_powerdown")
        vm.console.wait(b"PRESSED 288.")
        assert vm.wait_exit() == 0


def test_reset_with_an_ioapic_outside_the_kernel_boots_again(debian_amd64):
    with start(debian_amd64, "", *SPLIT) as vm:
        first = vm.console.wait(b"INIT READY")
        vm.qmp.command("system_reset")
        vm.console.wait(b"INIT READY", first)
        vm.console.send(b"echo CPUS $(nproc).; cat /proc/interrupts; poweroff -f\n")
        vm.console.wait(b"CPUS 2.", first)
        assert vm.wait_exit() == 0
