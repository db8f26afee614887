"""F1 to F15, F21, F22: what goes wrong with an update in QEMU, and what comes of it here (docs/reference/failures.md).

F16 to F20 are about cpr-transfer, and have a file of their own.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from harness import PROGRAM, Vm

CAPABILITY = "pause-before-switchover"


@pytest.fixture
def vm(ticker: Path):
    with Vm("-kernel", str(ticker)) as machine:
        machine.console.wait(b"tick 1")
        machine.update()
        yield machine


def goes_on(vm: Vm, footprint: object, *, stopped: bool) -> None:
    """The guest runs in the same process, nothing leaked, and a right update works."""
    assert vm.process.poll() is None
    assert stopped == bool([e for e in vm.qmp.events if e["event"] == "STOP"])
    vm.console.wait(b"tick", len(vm.console.text))
    assert vm.footprint() == footprint
    vm.update()


def failing(vm: Vm, command: list[str], uri: str = "") -> str:
    """Try this command; returns why the update failed. Events stay."""
    uri = vm.prepare_update(command=command, uri=uri)
    vm.qmp.events.clear()
    vm.qmp.command("migrate", uri=uri)
    seen = []
    while True:
        seen.append(vm.qmp.next_event())
        if seen[-1].get("data", {}).get("status") == "failed":
            break
    found = vm.qmp.command("query-migrate")
    vm.qmp.events[:0] = seen
    assert found["status"] == "failed"
    return found["error-desc"]


def state(vm: Vm) -> list[str]:
    return ["-incoming", f"file:{vm.folder}/vm.state"]


def test_f01_refused_before_setup(vm: Vm) -> None:
    footprint = vm.footprint()
    uri = vm.prepare_update()
    vm.qmp.command("migrate-set-parameters", **{"cpr-exec-command": []})
    vm.qmp.events.clear()
    reply = vm.qmp.raw("migrate", uri=uri)
    assert reply["error"]["desc"] == "cpr-exec mode requires setting cpr-exec-command"
    goes_on(vm, footprint, stopped=False)


def test_f02_state_file_cannot_be_made_and_nothing_leaks(vm: Vm) -> None:
    footprint = vm.footprint()
    vm.prepare_update(command=[*vm.argv, "-incoming", "defer"])
    vm.qmp.events.clear()
    for _ in range(10):
        reply = vm.qmp.raw("migrate", uri="file:/nonexistent/vm.state")
        assert "No such file or directory" in reply["error"]["desc"]
    goes_on(vm, footprint, stopped=False)


def test_f03_cancel_in_pre_switchover(vm: Vm) -> None:
    footprint = vm.footprint()
    uri = vm.prepare_update()
    vm.qmp.command(
        "migrate-set-capabilities", capabilities=[{"capability": CAPABILITY, "state": True}]
    )
    vm.qmp.command("migrate", uri=uri)
    vm.qmp.wait_event("MIGRATION", status="pre-switchover")
    vm.qmp.command("migrate_cancel")
    vm.qmp.wait_event("MIGRATION", status="cancelled")
    vm.qmp.command(
        "migrate-set-capabilities", capabilities=[{"capability": CAPABILITY, "state": False}]
    )
    assert vm.qmp.command("query-status")["running"] is True
    vm.qmp.events.clear()
    goes_on(vm, footprint, stopped=False)


def test_f04_return_path_is_no_capability_here(vm: Vm) -> None:
    footprint = vm.footprint()
    wanted = [{"capability": "return-path", "state": True}]
    assert "error" in vm.qmp.raw("migrate-set-capabilities", capabilities=wanted)
    vm.qmp.events.clear()
    goes_on(vm, footprint, stopped=False)


def test_f05_program_cannot_be_executed(vm: Vm) -> None:
    footprint = vm.footprint()
    uri = vm.prepare_update(command=["/nonexistent", *state(vm)])
    vm.qmp.events.clear()
    reply = vm.qmp.raw("migrate", uri=uri)
    assert reply["error"]["desc"] == "execvp /nonexistent failed: No such file or directory"
    goes_on(vm, footprint, stopped=False)


def without(words: list[str], option: str) -> list[str]:
    at = words.index(option)
    return words[:at] + words[at + 2 :]


WRONG = {
    "f06_bad_option": (lambda vm: [*vm.argv, "-bogus", *state(vm)], "unknown option '-bogus'"),
    "f07_command_that_is_no_monitor": (
        lambda vm: ["/bin/true", *state(vm)],
        "it ended without an answer",
    ),
    "f10_device_not_repeated": (lambda vm: [*without(vm.argv, "-qmp"), *state(vm)], "lacks"),
    "f11_ram_size_changed": (
        lambda vm: [*(w.replace("64M", "128M") for w in vm.argv), *state(vm)],
        "64 MiB",
    ),
    "f11_backend_renamed": (
        lambda vm: [*(w.replace("ram0", "ram1") for w in vm.argv), *state(vm)],
        "memory-backend is ram0",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_f06_f07_f10_f11_wrong_command_is_found_while_the_guest_runs(vm: Vm, name: str) -> None:
    command, text = WRONG[name]
    footprint = vm.footprint()
    error = failing(vm, command(vm))
    assert text in error
    goes_on(vm, footprint, stopped=False)


def test_f08_state_is_looked_for_elsewhere(vm: Vm) -> None:
    footprint = vm.footprint()
    uri = vm.prepare_update(command=[*vm.argv, "-incoming", "file:/elsewhere"])
    vm.qmp.events.clear()
    reply = vm.qmp.raw("migrate", uri=uri)
    assert "but the state would be in" in reply["error"]["desc"]
    goes_on(vm, footprint, stopped=False)


def test_f09_mistyped_migrate_incoming_can_be_repeated(vm: Vm) -> None:
    uri = vm.prepare_update(command=[*vm.argv, "-incoming", "defer"])
    vm.qmp.command("migrate", uri=uri)
    while vm.qmp.command("query-status")["status"] != "inmigrate":
        pass
    for _ in range(3):
        assert "error" in vm.qmp.raw("migrate-incoming", uri="file:/mistyped")
    vm.qmp.command("migrate-incoming", uri=uri)
    vm.console.wait(b"tick", len(vm.console.text))


def test_f12_capabilities_cross_the_update_or_cannot_be_set(vm: Vm) -> None:
    footprint = vm.footprint()
    wanted = [{"capability": "mapped-ram", "state": True}]
    assert "error" in vm.qmp.raw("migrate-set-capabilities", capabilities=wanted)
    vm.update()
    known = vm.qmp.command("query-migrate-capabilities")
    assert {"capability": "events", "state": True} in known
    vm.qmp.events.clear()
    goes_on(vm, footprint, stopped=False)


def test_f13_command_without_incoming_does_not_boot_anew(vm: Vm) -> None:
    footprint = vm.footprint()
    assert "no -incoming" in failing(vm, list(vm.argv))
    goes_on(vm, footprint, stopped=False)


def test_f14_private_ram_is_a_blocker(ticker: Path) -> None:
    with Vm("-kernel", str(ticker), shared=False) as vm:
        vm.console.wait(b"tick 1")
        uri = vm.prepare_update()
        assert "share=on" in str(vm.qmp.command("query-migrate")["blocked-reasons"])
        assert "not compatible with CPR" in vm.qmp.raw("migrate", uri=uri)["error"]["desc"]
        vm.console.wait(b"tick", len(vm.console.text))


def test_f15_descriptor_of_a_network_crosses_under_its_name(ticker: Path, tmp_path: Path) -> None:
    wire = f"stream,id=n0,server=on,addr.type=unix,addr.path={tmp_path}/net"
    card = ("-netdev", wire, "-device", "virtio-net-device,netdev=n0")
    with Vm("-kernel", str(ticker), *card) as vm:
        vm.console.wait(b"tick 1")
        vm.update()
        footprint = vm.footprint()
        vm.update()
        assert vm.footprint() == footprint


@pytest.mark.parametrize("value", ["abc", "999", "-1", "3"])
def test_f21_hostile_variable_is_one_sentence(value: str) -> None:
    done = subprocess.run(
        [str(PROGRAM), "-m", "64M"],
        env={**os.environ, "INSTAR_CPR_STATE": value},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 1
    assert re.match(r"instar-system: error: INSTAR_CPR_STATE=.*nothing was adopted", done.stderr)


def test_f22_parameters_are_fixed_during_an_update(vm: Vm) -> None:
    footprint = vm.footprint()
    uri = vm.prepare_update()
    wanted = [{"capability": CAPABILITY, "state": True}]
    vm.qmp.command("migrate-set-capabilities", capabilities=wanted)
    vm.qmp.command("migrate", uri=uri)
    vm.qmp.wait_event("MIGRATION", status="pre-switchover")
    reply = vm.qmp.raw("migrate-set-parameters", mode="normal")
    assert reply["error"]["desc"] == "There's a migration process in progress"
    vm.qmp.command("migrate_cancel")
    vm.qmp.wait_event("MIGRATION", status="cancelled")
    wanted = [{"capability": CAPABILITY, "state": False}]
    vm.qmp.command("migrate-set-capabilities", capabilities=wanted)
    vm.qmp.events.clear()
    goes_on(vm, footprint, stopped=False)
