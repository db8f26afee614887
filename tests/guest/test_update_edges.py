"""What monitors, disks and typists do at the wrong moment of a migration harms nobody."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness import PATIENCE, Vm
from instar.cpu.rv64.asm import assemble
from tickers import Ticker, status


def test_reset_of_a_paused_machine_makes_it_prelaunch_as_qemu_does(guest: Ticker) -> None:
    with guest.vm() as vm:
        vm.console.wait(b"tick 1")
        seen = len(vm.console.text)
        vm.qmp.command("stop")
        vm.qmp.command("system_reset")
        assert vm.qmp.command("query-status") == {"status": "prelaunch", "running": False}
        vm.qmp.command("cont")
        vm.console.wait(b"ticker: started", seen)


def test_deferred_incoming_finds_the_state_in_a_memfd(guest: Ticker) -> None:
    with guest.vm() as vm:
        vm.console.wait(b"tick 1")
        vm.prepare_update(command=[*vm.argv, "-incoming", "defer"])
        vm.qmp.command("migrate", uri="memfd:")
        while vm.qmp.command("query-status")["status"] != "inmigrate":
            pass
        vm.qmp.command("migrate-incoming", uri="memfd:")
        vm.qmp.wait_event("MIGRATION", status="completed")
        vm.console.wait(b"tick", len(vm.console.text))
        assert status(vm).errors == 0


def test_refused_migrate_leaves_the_report_of_the_update_before(guest: Ticker) -> None:
    with guest.vm() as vm:
        vm.console.wait(b"tick 1")
        report = vm.update()
        uri = vm.prepare_update(command=["/nonexistent/instar", "-incoming", "memfd:"])
        assert "error" in vm.qmp.raw("migrate", uri=uri)
        info = vm.qmp.command("query-migrate")
    # QEMU's members are those of the update before; ours tell of the last attempt, which was no migration.
    assert info.pop("x-update")["status"] == "refused"
    assert report.pop("x-update")["status"] == "completed"
    assert info == report


def test_phases_of_an_update_account_for_its_whole_pause(guest: Ticker) -> None:
    with guest.vm() as vm:
        vm.console.wait(b"tick 1")
        update = vm.update()["x-update"]
    phases = [phase["us"] for phase in update["phases"] if phase["name"] != "prepare"]
    assert sum(phases) + len(phases) >= update["pause-us"]


def test_incoming_guest_whose_disk_is_in_use_ends_with_one_sentence(
    guest: Ticker, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    drive = (
        "-drive", f"file={disk},if=none,id=d0,format=raw", "-device", "virtio-blk-device,drive=d0",
    )  # fmt: skip
    with guest.vm(*drive) as vm:
        vm.console.wait(b"tick 1")
        vm.qmp.command("migrate", uri=f"file:{tmp_path}/vm.state")
        while vm.qmp.command("query-status")["status"] != "postmigrate":
            pass
        vm.qmp.command("cont")
        with guest.vm(*drive, "-incoming", "defer") as other:
            other.qmp.command("migrate-incoming", uri=f"file:{tmp_path}/vm.state")
            assert other.wait_exit() == 1
            assert other.said().startswith(
                "instar-system: error: incoming migration: disk d0: failed"
            )
            assert len(other.said().splitlines()) <= 2  # the sentence, and a hint


def test_typing_during_updates_loses_no_byte(guest: Ticker) -> None:
    """One key at a time, a little later after each ``migrate``: some between saving the port and the exec."""
    with guest.vm() as vm:
        vm.console.wait(b"tick")
        uri = vm.prepare_update()
        for keys in range(1, 46):
            vm.qmp.events.clear()
            vm.qmp.command("migrate", uri=uri)
            typed_at = time.monotonic() + keys % 15 * 0.0002
            while time.monotonic() < typed_at:
                pass
            vm.console.send(b"x")
            vm.qmp.wait_event("RESUME")
        deadline = time.monotonic() + PATIENCE
        while status(vm).received < keys and time.monotonic() < deadline:
            vm.console.pull(0.1)
        assert status(vm).received == keys


@pytest.mark.parametrize("clock", [(), ("-icount", "shift=3")])
def test_guest_with_a_timer_in_the_far_future_can_be_stopped(
    clock: tuple[str, ...], tmp_path: Path
) -> None:
    guest = tmp_path / "guest.bin"
    guest.write_bytes(
        assemble(
            """
                li t0, 0x280000000000000
                csrw stimecmp, t0
                li t0, 0x20
                csrw sie, t0
            1:  wfi
                j 1b
            """,
            origin=0x80200000,
        ).image
    )
    with Vm("-kernel", str(guest), *clock) as vm:
        assert vm.update()["status"] == "completed"
        vm.qmp.command("stop")
        vm.qmp.command("quit")
        assert vm.wait_exit() == 0


PROCESSORS = {"software": "cpu-model.harts", "kvm": "kvm-model.vcpus"}


def test_incoming_state_of_another_machine_is_refused_before_anything_is_loaded(
    guest: Ticker, backend: str, tmp_path: Path
) -> None:
    uri = f"file:{tmp_path}/vm.state"
    with guest.vm() as vm:
        vm.console.wait(b"tick 1")
        vm.qmp.command("migrate", uri=uri)
        while vm.qmp.command("query-status")["status"] != "postmigrate":
            pass
    with guest.vm("-smp", "2", "-incoming", "defer") as other:
        for _ in range(2):
            reply = other.qmp.raw("migrate-incoming", uri=uri)
            refused = f"{PROCESSORS[backend]}: the guest has 1, this command line gives 2"
            assert reply["error"]["desc"] == refused
        assert other.qmp.command("query-status")["status"] == "inmigrate"
