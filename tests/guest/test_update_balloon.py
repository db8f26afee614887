"""The balloon under a Debian guest: pages really go back to the host, and stay there through updates."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness import PATIENCE, QmpError, Vm, fd_name

RAM = 256 << 20
FILL = "dd if=/dev/zero of=/tmp/x bs=1048576 count=100 2>/dev/null; rm /tmp/x; echo FILLED; sleep 1000"


def used(vm: Vm) -> int:
    """Bytes of the host's memory that the guest's RAM takes."""
    for link in Path(f"/proc/{vm.process.pid}/fd").iterdir():
        if "memory-backend-ram0" in fd_name(link):
            return os.stat(link).st_blocks * 512
    raise AssertionError("no memfd")


def wait_until(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def guest(debian, device: str) -> Vm:
    append = f'console=ttyS0 quiet instar.run="{FILL}"'
    return Vm(*debian.arguments(append), "-device", device, size=RAM >> 20)


def test_inflated_pages_leave_the_memfd_and_come_back_through_updates(debian) -> None:
    with guest(debian, "virtio-balloon-device,id=b0") as vm:
        vm.console.wait(b"FILLED")
        full = used(vm)
        assert full > 120 << 20
        vm.qmp.command("balloon", value=RAM - (96 << 20))
        for _ in range(3):
            vm.update()  # while pages come in
        wait_until(lambda: vm.qmp.command("query-balloon")["actual"] == RAM - (96 << 20))
        assert used(vm) < full - (60 << 20)
        vm.update()
        assert vm.qmp.command("query-balloon")["actual"] == RAM - (96 << 20)
        wait_until(lambda: "stat-free-memory" in vm.qmp.command("query-balloon")["x-stats"])
        vm.qmp.command("balloon", value=RAM)
        vm.qmp.wait_event("BALLOON_CHANGE", actual=RAM)


def test_reported_pages_leave_the_memfd(debian) -> None:
    device = "virtio-balloon-device,free-page-reporting=on,deflate-on-oom=on"
    with guest(debian, device) as vm:
        vm.console.wait(b"FILLED")
        wait_until(lambda: used(vm) < 100 << 20)
        vm.update()
        assert vm.qmp.command("query-status")["running"]


def test_machine_without_a_balloon_says_so(ticker) -> None:
    with Vm("-kernel", str(ticker)) as vm, pytest.raises(QmpError, match="No balloon device"):
        vm.qmp.command("query-balloon")
