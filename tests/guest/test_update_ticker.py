"""Updates in place under the bare-metal guest: it never notices, and neither do those who are connected."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tickers import Ticker, status


def test_guest_boots_ticks_and_echoes(guest: Ticker) -> None:
    with guest.vm() as vm:
        vm.console.wait(b"tick 2")
        vm.console.send(b"hello\r")
        vm.console.wait(b"hello")
        assert status(vm).errors == 0
        vm.console.send(b"exit\r")
        assert vm.qmp.wait_event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-shutdown"}
        assert vm.wait_exit() == 0


def test_update_keeps_process_connections_guest_and_settings(guest: Ticker) -> None:
    with guest.vm() as vm:
        vm.console.wait(b"tick 1")
        pid, before = vm.process.pid, status(vm)
        report = vm.update()
        assert report["status"] == "completed"
        assert report["x-update"]["old-version"] == report["x-update"]["new-version"]
        assert [phase["name"] for phase in report["x-update"]["phases"]] == [
            "prepare", "rehearse", "stop", "save", "exec", "build", "load", "resume", "settle",
        ]  # fmt: skip
        vm.qmp.wait_event("RESUME")
        vm.console.wait(b"tick", len(vm.console.text))
        after = status(vm)
        assert after.counter > before.counter
        assert after.errors == 0
        assert vm.qmp.command("query-status") == {"status": "running", "running": True}
        assert vm.qmp.command("query-migrate-parameters")["mode"] == "cpr-exec"
        assert vm.process.poll() is None
        assert Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-3:-1] == [
            b"-incoming", f"file:{vm.folder}/vm.state".encode(),
        ]  # fmt: skip


def test_events_of_an_update_come_in_qemus_order(guest: Ticker) -> None:
    with guest.vm() as vm:
        vm.console.wait(b"tick 1")
        uri = vm.prepare_update()
        vm.qmp.events.clear()
        vm.qmp.command("migrate", uri=uri)
        seen: list[object] = []
        while seen[-1:] != ["RESUME"]:
            event = vm.qmp.next_event()
            if event["event"].startswith("UPDATE_"):  # ours, between them
                continue
            seen.append(
                event["data"].get("status") or event["data"].get("pass")
                if "data" in event
                else event["event"]
            )
        assert seen == ["setup", "STOP", "active", 2, "device", "completed", "RESUME"]


@pytest.mark.parametrize("uri", ["file:{folder}/vm.state,offset=8192", "memfd:"])
def test_update_through_other_channels(guest: Ticker, uri: str) -> None:
    with guest.vm() as vm:
        vm.console.wait(b"tick 1")
        vm.update(uri=uri.format(folder=vm.folder))
        vm.console.wait(b"tick", len(vm.console.text))
        assert status(vm).errors == 0


def test_twenty_updates_lose_no_console_byte_and_nothing_grows(guest: Ticker) -> None:
    with guest.vm("-smp", "2") as vm:
        vm.console.wait(b"tick 1")
        vm.update()
        footprint = vm.footprint()
        for _ in range(19):
            vm.update()
        assert vm.footprint() == footprint
        vm.console.send(b"still here\r")
        vm.console.wait(b"still here")
        ticks = [int(n) for n in re.findall(rb"^tick (\d+)\n", vm.console.text, re.M)]
        assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))
        assert status(vm).errors == 0


def test_every_processor_counts_on_after_an_update(guest: Ticker) -> None:
    with guest.vm("-smp", "2") as vm:
        vm.console.wait(b"tick 3")
        vm.update()
        before = status(vm).turns
        for _ in range(3):
            vm.console.wait(b"tick", len(vm.console.text))
        after = status(vm).turns
    assert [now > then for then, now in zip(before, after, strict=True)] == [
        False, True, *[False] * 6,
    ]  # fmt: skip


def test_paused_guest_stays_paused(guest: Ticker) -> None:
    with guest.vm() as vm:
        vm.console.wait(b"tick 1")
        vm.qmp.command("stop")
        before = status(vm)
        vm.update()
        assert vm.qmp.command("query-status") == {"status": "paused", "running": False}
        assert status(vm) == before
        vm.qmp.command("cont")
        vm.console.wait(b"tick", len(vm.console.text))


def test_deferred_incoming_waits_for_the_command_and_can_be_tried_again(guest: Ticker) -> None:
    with guest.vm() as vm:
        vm.console.wait(b"tick 1")
        uri = vm.prepare_update(command=[*vm.argv, "-incoming", "defer"])
        vm.qmp.command("migrate", uri=uri)
        while vm.qmp.command("query-status")["status"] != "inmigrate":
            pass
        reply = vm.qmp.raw("migrate-incoming", uri="file:/nonexistent/vm.state")
        assert "No such file" in reply["error"]["desc"]
        vm.qmp.command("migrate-incoming", uri=uri)
        vm.qmp.wait_event("MIGRATION", status="completed")
        vm.console.wait(b"tick", len(vm.console.text))


def test_pause_before_switchover_waits_then_goes_on(guest: Ticker) -> None:
    with guest.vm() as vm:
        vm.console.wait(b"tick 1")
        uri = vm.prepare_update()
        vm.qmp.command(
            "migrate-set-capabilities",
            capabilities=[{"capability": "pause-before-switchover", "state": True}],
        )
        vm.qmp.command("migrate", uri=uri)
        vm.qmp.wait_event("MIGRATION", status="pre-switchover")
        assert vm.qmp.command("query-status")["status"] == "finish-migrate"
        vm.qmp.command("migrate-continue", state="pre-switchover")
        vm.qmp.wait_event("MIGRATION", status="completed")
        vm.console.wait(b"tick", len(vm.console.text))


def test_cancel_before_switchover_resumes_and_a_retry_works(guest: Ticker) -> None:
    with guest.vm() as vm:
        vm.console.wait(b"tick 1")
        uri = vm.prepare_update()
        footprint = vm.footprint()
        capability = {"capability": "pause-before-switchover", "state": True}
        vm.qmp.command("migrate-set-capabilities", capabilities=[capability])
        vm.qmp.command("migrate", uri=uri)
        vm.qmp.wait_event("MIGRATION", status="pre-switchover")
        vm.qmp.command("migrate_cancel")
        vm.qmp.wait_event("MIGRATION", status="cancelled")
        vm.qmp.wait_event("RESUME")
        assert vm.qmp.command("query-migrate")["status"] == "cancelled"
        assert vm.footprint() == footprint
        assert not (vm.folder / "vm.state").exists()
        vm.qmp.command("migrate-set-capabilities", capabilities=[capability | {"state": False}])
        vm.update()


def test_reset_after_an_update_boots_the_same_images_without_the_files(
    guest: Ticker, tmp_path: Path
) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(guest.kernel.read_bytes())
    with Ticker(guest.machine, kernel).vm() as vm:
        vm.console.wait(b"tick 1")
        vm.update()
        kernel.unlink()
        seen = len(vm.console.text)
        vm.qmp.command("system_reset")
        assert vm.qmp.wait_event("RESET")["data"] == {
            "guest": False,
            "reason": "host-qmp-system-reset",
        }
        vm.console.wait(b"tick 1\n", seen)


def test_normal_migration_moves_the_guest_to_another_process(guest: Ticker) -> None:
    with guest.vm() as vm:
        vm.console.wait(b"tick 1")
        uri = f"file:{vm.folder}/vm.state"
        vm.qmp.command(
            "migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}]
        )
        vm.qmp.command("migrate", uri=uri)
        vm.qmp.wait_event("MIGRATION", status="completed")
        assert vm.qmp.command("query-status") == {"status": "postmigrate", "running": False}
        before = status(vm)
        with guest.vm("-incoming", uri) as other:
            other.console.wait(b"tick")
            after = status(other)
            assert after.counter >= before.counter
            assert after.ticks >= before.ticks
            assert after.errors == 0
        reply = vm.qmp.raw("migrate", uri=uri)
        assert (
            reply["error"]["desc"]
            == "Can't migrate the vm that was paused due to previous migration"
        )
