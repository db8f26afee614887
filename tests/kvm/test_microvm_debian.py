"""Debian's stock amd64 kernel on the board ``microvm``: boots, sees its devices, ends and starts again as it should."""

from __future__ import annotations

import re

import pytest

from harness import Vm

QUIET = "console=ttyS0 quiet panic=-1"
BAD = re.compile(
    rb"ACPI (Error|Warning|BIOS)|stall|lockup|clocksource.*unstable|Oops|BUG:|WARNING:"
)


@pytest.fixture
def boot(debian_amd64):
    """Returns a function that starts Debian with words for its command line and more options."""

    def start(words: str, *more: str) -> Vm:
        arguments = debian_amd64.arguments(f"{QUIET} {words}")
        return Vm("-machine", "microvm", "-smp", "2", *arguments, *more, size=256)

    return start


def test_debian_finds_all_devices_and_powers_off(boot, tmp_path):
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"on the disk".ljust(1 << 20, b"\0"))
    look = (
        "nproc; head -c 11 /dev/vda; echo; cat /proc/interrupts; hwclock; dmesg | grep -c kvm-clock; "
        "head -c 8 /dev/hwrng | wc -c"
    )
    with boot(
        f'instar.run="{look}" instar.poweroff',
        "-drive", f"file={disk},format=raw", "-device", "virtio-rng-device",
    ) as vm:  # fmt: skip
        vm.console.wait(b"RUN status 0")
        said = vm.console.text
        assert vm.wait_exit() == 0
    assert b"on the disk" in said
    for name in (b"ttyS0", b"rtc0", b"virtio0", b"virtio1", b"ACPI:Ged"):
        assert name in said
    assert not BAD.search(said)


def test_power_button_is_seen_by_the_guest(boot):
    watch = "cat /dev/input/event0 > /tmp/keys & sleep 1; echo WATCHING; while [ ! -s /tmp/keys ]; do sleep 1; done"
    with boot(f'instar.run="{watch}; echo PRESSED" instar.poweroff') as vm:
        vm.console.wait(b"WATCHING")
        vm.qmp.command("system_powerdown")
        vm.console.wait(b"PRESSED")
        assert vm.wait_exit() == 0


@pytest.mark.parametrize("way", ["acpi", "kbd"])
def test_reboot_starts_the_same_kernel_again(boot, way):
    with boot(f'instar.run="reboot -f" reboot={way}') as vm:
        first = vm.console.wait(b"INIT REACHED")
        vm.qmp.wait_event("RESET")
        vm.console.wait(b"INIT REACHED", first)


def test_kernel_that_panics_is_told(boot):
    with boot('instar.run="modprobe pvpanic_mmio; echo c > /proc/sysrq-trigger"') as vm:
        vm.qmp.wait_event("GUEST_PANICKED")
