"""Guests that panic or hang: the panic notifier and the watchdog, through updates."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import Vm
from instar.cpu.rv64.asm import assemble

PANICS = """
        li      t0, 0x102000            # pvpanic
        li      t1, 1
        lbu     t2, 0(t0)
        and     t1, t1, t2
        sb      t1, 0(t0)
        li      t0, 0x10000000          # it goes on: say so
        li      t1, 46
        sb      t1, 0(t0)
1:      wfi
        j       1b
"""
GUARDED = (
    "modprobe sunxi_wdt; watchdog -T 2 -t 1 -F /dev/watchdog & "
    "sleep 5; echo GUARDED; read x; kill -9 %1; echo LEFT; sleep 100"
)


@pytest.fixture
def panics(tmp_path: Path) -> str:
    path = tmp_path / "panics.bin"
    path.write_bytes(assemble(PANICS, 0x8020_0000).image)
    return str(path)


def test_panic_ends_the_process_unless_told_otherwise(panics: str) -> None:
    with Vm("-kernel", panics, "-S") as vm:
        vm.qmp.command("cont")
        assert vm.qmp.wait_event("GUEST_PANICKED")["data"] == {"action": "poweroff"}
        assert vm.qmp.wait_event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-panic"}
        assert vm.wait_exit() == 0


def test_panic_pauses_and_stays_so_through_an_update(panics: str) -> None:
    with Vm("-kernel", panics, "-S", "-action", "panic=pause") as vm:
        vm.qmp.command("cont")
        assert vm.qmp.wait_event("GUEST_PANICKED")["data"] == {"action": "pause"}
        vm.update()
        assert vm.qmp.command("query-status") == {"status": "guest-panicked", "running": False}
        vm.qmp.command("cont")
        vm.console.wait(b".")


def test_panic_that_nobody_cares_about_is_told_and_the_guest_goes_on(panics: str) -> None:
    with Vm("-kernel", panics, "-S", "-action", "panic=none") as vm:
        vm.qmp.command("cont")
        assert vm.qmp.wait_event("GUEST_PANICKED")["data"] == {"action": "run"}
        vm.console.wait(b".")


def test_watchdog_of_a_linux_guest_barks_only_when_it_is_left_alone(debian) -> None:
    append = f'console=ttyS0 quiet instar.run="{GUARDED}"'
    with Vm(*debian.arguments(append), "-action", "watchdog=pause", size=256) as vm:
        vm.console.wait(b"GUARDED")
        for _ in range(3):
            vm.update()
        vm.console.send(b"\n")
        vm.console.wait(b"LEFT")
        vm.update()
        assert vm.qmp.wait_event("WATCHDOG")["data"] == {"action": "pause"}
        assert vm.qmp.command("query-status") == {"status": "watchdog", "running": False}
