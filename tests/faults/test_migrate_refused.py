"""A migration that cannot be: an exact reason, the guest runs on, nothing leaks, and a right one works afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness import Vm
from tickers import Ticker


@pytest.fixture
def vm(ticker: Path):
    """On the software CPU: most of these never come to what runs the guest."""
    with Vm("-kernel", str(ticker)) as machine:
        machine.console.wait(b"tick 1")
        machine.prepare_update()
        yield machine


def assert_unharmed(vm: Vm, footprint: object) -> None:
    """The guest runs on, nothing is left over, and an update that is right goes through."""
    assert vm.qmp.command("query-status")["running"] is True
    vm.console.wait(b"tick", len(vm.console.text))
    assert vm.footprint() == footprint
    assert sorted(p.name for p in vm.folder.iterdir()) == ["qmp", "serial", "stderr"]
    vm.update()
    vm.console.wait(b"tick", len(vm.console.text))


PROGRAMS = [
    (
        "/nonexistent/instar-system",
        "execvp /nonexistent/instar-system failed: No such file or directory",
    ),
    ("/", "execvp / failed: Permission denied"),
    ("/etc/passwd", "execvp /etc/passwd failed: Permission denied"),
    (
        "no-such-program-on-path",
        "execvp no-such-program-on-path failed: No such file or directory",
    ),
]


@pytest.mark.parametrize(("program", "text"), PROGRAMS)
def test_program_that_cannot_be_executed_is_refused(vm: Vm, program: str, text: str) -> None:
    footprint = vm.footprint()
    uri = vm.prepare_update(command=[program, "-incoming", "defer"])
    reply = vm.qmp.raw("migrate", uri=uri)
    assert reply["error"]["desc"] == text
    assert_unharmed(vm, footprint)


def test_no_command_is_refused(vm: Vm) -> None:
    footprint = vm.footprint()
    vm.qmp.command("migrate-set-parameters", **{"cpr-exec-command": []})
    reply = vm.qmp.raw("migrate", uri="memfd:")
    assert reply["error"]["desc"] == "cpr-exec mode requires setting cpr-exec-command"
    assert_unharmed(vm, footprint)


def test_command_without_incoming_is_refused(vm: Vm) -> None:
    footprint = vm.footprint()
    uri = vm.prepare_update(command=vm.argv)
    vm.qmp.command("migrate", uri=uri)
    vm.qmp.wait_event("MIGRATION", status="failed")
    assert vm.qmp.command("query-migrate")["error-desc"].endswith(
        "the command line has no -incoming: the guest would be started anew; the guest was not stopped"
    )
    assert_unharmed(vm, footprint)


UNREHEARSED = [
    (lambda vm: vm.argv, "no -incoming: the new program would start the guest anew"),
    (lambda vm: [*vm.argv, "-append", "-incoming"], "no -incoming: the new program would"),
    (lambda vm: [*vm.argv, "-incoming", "defer", "-bogus"], "unknown option '-bogus'"),
    (lambda _: ["/bin/true"], "has no -incoming: the new program would start the guest anew"),
]


@pytest.mark.parametrize(("command", "text"), UNREHEARSED)
def test_command_that_nobody_rehearses_is_parsed(vm: Vm, command, text: str) -> None:
    footprint = vm.footprint()
    vm.qmp.command("migrate-set-parameters", **{"x-update-rehearsal": False})
    uri = vm.prepare_update(command=command(vm))
    reply = vm.qmp.raw("migrate", uri=uri)
    assert reply["error"]["desc"].startswith("cpr-exec-command")
    assert text in reply["error"]["desc"]
    assert_unharmed(vm, footprint)


@pytest.mark.parametrize(
    ("incoming", "uri"),
    [
        ("file:/elsewhere/vm.state", "memfd:"),
        ("memfd:", "file:/elsewhere/vm.state"),
        ("file:/elsewhere/vm.state", "file:/elsewhere/vm.state,offset=4096"),
    ],
)
def test_command_that_looks_for_the_state_elsewhere_is_refused(
    vm: Vm, incoming: str, uri: str
) -> None:
    footprint = vm.footprint()
    vm.prepare_update(command=[*vm.argv, "-incoming", incoming])
    reply = vm.qmp.raw("migrate", uri=uri)
    assert (
        reply["error"]["desc"]
        == f"cpr-exec-command has -incoming {incoming}, but the state would be in {uri}"
    )
    assert_unharmed(vm, footprint)


def test_full_disk_for_the_state_is_told_and_survived(guest: Ticker) -> None:
    with guest.vm() as vm:
        vm.console.wait(b"tick 1")
        vm.prepare_update()
        footprint = vm.footprint()
        vm.qmp.command("migrate", uri=vm.prepare_update(uri="file:/dev/full"))
        vm.qmp.wait_event("MIGRATION", status="failed")
        vm.qmp.wait_event("RESUME")
        assert (
            vm.qmp.command("query-migrate")["error-desc"]
            == "Unable to write to file /dev/full: No space left on device"
        )
        assert_unharmed(vm, footprint)


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        (
            "file:/nonexistent/vm.state",
            "cannot open migration file /nonexistent/vm.state: No such file or directory",
        ),
        (
            "file:/sys/vm.state",
            "cannot open migration file /sys/vm.state: ",
        ),  # a folder where nobody may write
        ("file:{folder}", "cannot open migration file {folder}: Is a directory"),
        ("bogus:1", "unknown migration protocol: bogus:1"),
    ],
)
def test_state_file_that_cannot_be_made_is_refused(vm: Vm, uri: str, text: str) -> None:
    footprint = vm.footprint()
    vm.prepare_update(command=[*vm.argv, "-incoming", "defer"])
    reply = vm.qmp.raw("migrate", uri=uri.format(folder=vm.folder))
    assert reply["error"]["desc"].startswith(text.format(folder=vm.folder))
    assert_unharmed(vm, footprint)


def test_pipe_as_the_state_file_is_refused_without_waiting_for_its_reader(vm: Vm) -> None:
    footprint = vm.footprint()
    vm.prepare_update(command=[*vm.argv, "-incoming", "defer"])
    pipe = vm.folder / "pipe"
    os.mkfifo(pipe)
    text = f"cannot open migration file {pipe}: "
    reply = vm.qmp.raw("migrate", uri=f"file:{pipe}")
    assert reply["error"]["desc"] == text + "No such device or address"
    with open(pipe, "r+b", buffering=0):
        reply = vm.qmp.raw("migrate", uri=f"file:{pipe}")
    assert reply["error"]["desc"] == text + "it is a pipe, not a file"
    pipe.unlink()
    assert_unharmed(vm, footprint)


INCOMING = [
    ("file:{folder}", "the state cannot be read: Is a directory"),
    ("file:/proc/self/mem", "the state cannot be read: Input/output error"),
    ("file:/dev/null", "header: torn, 0 of 20 bytes are there"),
    ("file:/dev/zero", "header: bad magic 0000000000000000; nothing was loaded"),
    ("file:{folder}/pipe", "cannot open migration file {folder}/pipe: it is a pipe, not a file"),
    ("file:a\0b", "migration file 'a\\x00b': not UTF-8, or has NUL"),
    ("file:a\ud800", "migration file 'a\\ud800': not UTF-8, or has NUL"),
]


def test_state_that_cannot_be_read_is_refused_and_a_right_one_is_still_taken(
    guest: Ticker,
) -> None:
    with guest.vm() as vm:
        vm.console.wait(b"tick 1")
        uri = vm.prepare_update(command=[*vm.argv, "-incoming", "defer"])
        os.mkfifo(vm.folder / "pipe")
        vm.qmp.command("migrate", uri=uri)
        while vm.qmp.command("query-status")["status"] != "inmigrate":
            pass
        for wrong, text in INCOMING:
            reply = vm.qmp.raw("migrate-incoming", uri=wrong.format(folder=vm.folder))
            assert reply["error"]["desc"] == text.format(folder=vm.folder)
        vm.qmp.command("migrate-incoming", uri=uri)
        vm.console.wait(b"tick", len(vm.console.text))


def test_state_file_that_somebody_removes_does_not_hide_why_the_update_failed(vm: Vm) -> None:
    footprint = vm.footprint()
    target = vm.folder / "target"
    target.write_text("#!/bin/sh\n")
    target.chmod(0o755)
    uri = vm.prepare_update(command=[str(target), "-incoming", "defer"])
    # This program would not get through its rehearsal; what is looked at is what comes after one.
    vm.qmp.command("migrate-set-parameters", **{"x-update-rehearsal": False})
    pause = {"capability": "pause-before-switchover", "state": True}
    vm.qmp.command("migrate-set-capabilities", capabilities=[pause])
    vm.qmp.command("migrate", uri=uri)
    vm.qmp.wait_event("MIGRATION", status="pre-switchover")
    (vm.folder / "vm.state").unlink()
    target.chmod(0o644)
    vm.qmp.command("migrate-continue", state="pre-switchover")
    vm.qmp.wait_event("RESUME")
    assert (
        vm.qmp.command("query-migrate")["error-desc"]
        == f"execvp {target} failed: Permission denied"
    )
    target.unlink()
    vm.qmp.command("migrate-set-parameters", **{"x-update-rehearsal": True})
    vm.qmp.command("migrate-set-capabilities", capabilities=[pause | {"state": False}])
    assert_unharmed(vm, footprint)


def test_state_cut_short_anywhere_is_refused_and_the_whole_one_is_still_taken(
    guest: Ticker,
) -> None:
    with guest.vm() as vm:
        vm.console.wait(b"tick 1")
        uri = vm.prepare_update(command=[*vm.argv, "-incoming", "defer"])
        vm.qmp.command("migrate", uri=uri)
        while vm.qmp.command("query-status")["status"] != "inmigrate":
            pass
        whole = (vm.folder / "vm.state").read_bytes()
        for length in (*range(0, len(whole), 97), len(whole) - 1):
            (vm.folder / "part").write_bytes(whole[:length])
            reply = vm.qmp.raw("migrate-incoming", uri=f"file:{vm.folder}/part")
            assert " torn, " in reply["error"]["desc"]
        vm.qmp.command("migrate-incoming", uri=uri)
        vm.console.wait(b"tick", len(vm.console.text))


def test_missing_arguments_are_refused(vm: Vm) -> None:
    footprint = vm.footprint()
    assert vm.qmp.raw("migrate")["error"]["desc"] == "need either 'uri' or 'channels' argument"
    assert_unharmed(vm, footprint)


REASON = (
    "Memory region {} is not compatible with CPR. share=on is required for memory-backend objects, "
    "and aux-ram-share=on is required."
)


def test_unshared_memory_is_a_blocker_that_is_shown_and_refused(guest: Ticker) -> None:
    with guest.vm(shared=False) as vm:
        vm.console.wait(b"tick 1")
        uri = vm.prepare_update()
        assert vm.qmp.command("query-migrate")["blocked-reasons"] == [
            REASON.format("ram0"),
            REASON.format(f"{guest.machine.board}.boot"),
        ]
        assert vm.qmp.raw("migrate", uri=uri)["error"]["desc"] == REASON.format("ram0")
        vm.console.wait(b"tick", len(vm.console.text))
        vm.qmp.command("migrate-set-parameters", mode="normal")
        assert "blocked-reasons" not in vm.qmp.command("query-migrate")


def test_file_that_was_there_keeps_its_size_when_the_migration_is_off(
    vm: Vm, tmp_path: Path
) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"x" * 100)
    capability = {"capability": "pause-before-switchover", "state": True}
    vm.qmp.command("migrate-set-capabilities", capabilities=[capability])
    vm.qmp.command("migrate", uri=vm.prepare_update(uri=f"file:{path}"))
    vm.qmp.wait_event("MIGRATION", status="pre-switchover")
    vm.qmp.command("migrate_cancel")
    assert path.read_bytes() == b"x" * 100


def test_stop_while_a_migration_waits_is_obeyed_when_it_is_off(vm: Vm) -> None:
    capability = {"capability": "pause-before-switchover", "state": True}
    vm.qmp.command("migrate-set-capabilities", capabilities=[capability])
    vm.qmp.command("migrate", uri=vm.prepare_update())
    vm.qmp.wait_event("MIGRATION", status="pre-switchover")
    vm.qmp.command("stop")
    vm.qmp.command("migrate_cancel")
    assert vm.qmp.command("query-status") == {"status": "paused", "running": False}
    vm.qmp.command("cont")
    vm.console.wait(b"tick", len(vm.console.text))
