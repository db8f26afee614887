"""What tests of KVM stand on: the device, and that somebody else's program runs Debian's kernel on it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

QEMU = shutil.which("qemu-system-x86_64")
GET_API_VERSION = 0xAE00
PATIENCE = 120.0  # seconds for a guest that an emulated machine runs; no test measures


def loaded_modules() -> set[str]:
    return {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()}


def test_kvm_device_speaks_version_12():
    fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    try:
        assert fcntl.ioctl(fd, GET_API_VERSION) == 12
    finally:
        os.close(fd)


def test_kvm_is_the_real_one_for_this_processor():
    assert {"kvm_amd", "kvm_intel"} & loaded_modules()


@pytest.mark.skipif(QEMU is None, reason="no qemu-system-x86_64: install qemu-system-x86")
def test_qemu_microvm_with_kvm_boots_debian_to_a_program_of_ours(debian_amd64):
    append = 'console=ttyS0 panic=-1 quiet instar.run="uname -m" instar.poweroff'
    machine = "microvm,x-option-roms=off,isa-serial=on,rtc=on"
    done = subprocess.run(
        [
            *(str(QEMU), "-accel", "kvm", "-M", machine, "-bios", "qboot.rom", "-cpu", "host"),
            *("-m", "256M", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-serial", "stdio", *debian_amd64.arguments(append)),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert "x86_64" in done.stdout.split(), done.stdout + done.stderr
    assert "RUN status 0" in done.stdout
