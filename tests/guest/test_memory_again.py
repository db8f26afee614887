"""After an update the guest's memory is mapped again without the guest's doing."""

from __future__ import annotations

import os
import time
from pathlib import Path

from harness import PATIENCE, Vm

MIB = 1 << 20


def mapped(pid: int) -> int:
    """Bytes of shared memory in the process's page tables."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssShmem:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no RssShmem")


def there(vm: Vm) -> int:
    """Bytes that the guest's memory has on the host."""
    for link in Path(f"/proc/{vm.process.pid}/fd").iterdir():
        if "memory-backend-ram0" in os.readlink(link):
            return link.stat().st_blocks * 512
    raise AssertionError("no ram0")


def test_memory_of_a_sleeping_guest_is_mapped_again_after_an_update(debian) -> None:
    with Vm(*debian.arguments("console=ttyS0 quiet"), size=192) as vm:
        vm.console.wait(b"INIT REACHED")
        before = there(vm)
        assert before > 32 * MIB
        vm.update()
        deadline = time.monotonic() + PATIENCE
        while mapped(vm.process.pid) < before - 4 * MIB:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert there(vm) < before + 16 * MIB
