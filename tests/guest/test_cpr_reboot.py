"""Mode cpr-reboot: a guest waits in files until another program goes on with it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from harness import PATIENCE, PROGRAM, QmpError, Vm
from instar.sandbox.landlock import abi
from tickers import Ticker

TICK = re.compile(rb"tick (\d+)\r?\n")
FAILED = 1  # exit status of an incoming migration that failed


class Files:
    """Where the guest waits, and the words of a machine whose memory is there."""

    def __init__(self, folder: Path, guest: Ticker) -> None:
        self.machine = guest.machine
        self.memory = folder / "ram"
        self.state = folder / "vm.state"
        self.mark = folder / "ram.instar-left"
        self.words = (
            *guest.words, "-object",
            f"memory-backend-file,id=ramf,size=64M,share=on,mem-path={self.memory}",
            "-machine", "memory-backend=ramf",
        )  # fmt: skip

    def start(self, *extra: str, **options) -> Vm:
        return Vm(*self.words, *extra, machine=self.machine, **options)

    def leave(self, vm: Vm, *, shared: bool = True) -> dict:
        vm.console.wait(b"tick 3")
        vm.qmp.command("migrate-set-parameters", mode="cpr-reboot")
        switches = [
            {"capability": "x-ignore-shared", "state": shared},
            {"capability": "events", "state": True},
        ]
        vm.qmp.command("migrate-set-capabilities", capabilities=switches)
        vm.qmp.command("migrate", uri=f"file:{self.state}")
        vm.qmp.wait_event("MIGRATION", status="completed")
        assert vm.qmp.command("query-status")["status"] == "postmigrate"
        return vm.qmp.command("query-migrate")

    def refused(self, *extra: str) -> str:
        """Start a program that should go on and may not; returns what it says."""
        command = [
            PROGRAM, "-m", "64M", "-nodefaults",
            "-object", "memory-backend-memfd,id=ram0,size=64M,share=on",
            "-machine", f"{self.machine.board},memory-backend=ram0,aux-ram-share=on", *self.machine.words,
            *self.words, "-incoming", f"file:{self.state}", *extra,
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == FAILED
        return done.stderr


@pytest.fixture
def files(tmp_path: Path, guest: Ticker) -> Files:
    return Files(tmp_path, guest)


def last_tick(vm: Vm) -> int:
    vm.console.pull_all()
    return int(TICK.findall(vm.console.text)[-1])


def next_tick(vm: Vm) -> int:
    start = vm.console.wait(b"\n", len(vm.console.text))
    vm.console.wait(b"\n", start + 1)
    return int(TICK.findall(vm.console.text, start)[0])


@pytest.mark.parametrize("shared", [True, False])
def test_guest_goes_on_from_files_in_another_process(files: Files, shared: bool) -> None:
    with files.start() as vm:
        done = files.leave(vm, shared=shared)
        assert done["status"] == "completed"
        before = last_tick(vm)
        vm.qmp.command("quit")
        vm.wait_exit()
    assert files.mark.exists() is shared
    if not shared:
        files.memory.unlink()  # a new one will do
    with files.start("-incoming", f"file:{files.state}") as vm:
        assert vm.qmp.command("query-status")["running"] is True
        assert before < next_tick(vm) < before + 100
        assert not files.mark.exists()


def test_of_two_programs_on_one_memory_only_one_goes_on(files: Files) -> None:
    with files.start() as old:
        files.leave(old)
        with files.start("-incoming", f"file:{files.state}") as new:
            assert new.qmp.command("query-status")["running"] is True
            for command in ("cont", "cont", "system_reset"):
                with pytest.raises(
                    QmpError, match="another program went on with this guest's memory"
                ):
                    old.qmp.command(command)
            new.console.wait(b"tick", len(new.console.text))
        with pytest.raises(QmpError, match="never runs here again"):
            old.qmp.command("cont")
    assert "is not as this state left it" in files.refused()


def test_state_whose_memory_is_not_the_one_that_was_left_is_refused(files: Files) -> None:
    with files.start() as vm:
        files.leave(vm)
        mark = files.mark.read_text()
        files.mark.write_text("of another time\n")
        assert "is not as this state left it" in files.refused()
        files.mark.write_text(mark)
        vm.qmp.command("cont")  # the memory goes on, and the state is worth nothing
        vm.console.wait(b"tick", len(vm.console.text))
        assert not files.mark.exists()
        vm.qmp.command("quit")
        vm.wait_exit()
    assert "is not as this state left it" in files.refused()


def test_state_of_another_vm_is_refused_by_name_and_the_own_one_goes_on(files: Files) -> None:
    uuid, other = (f"{digit * 8}-1234-1234-1234-123456789abc" for digit in "12")
    named = ("-name", "web", "-uuid", uuid)
    with files.start(*named) as vm:
        files.leave(vm)
    for words in (("-name", "db", "-uuid", other), ("-name", "db")):
        said = files.refused(*words)
        assert f"the state is of VM web (-uuid {uuid}), this command line of VM db" in said
    with files.start(*named, "-incoming", f"file:{files.state}") as vm:
        assert vm.qmp.command("query-uuid") == {"UUID": uuid}
        assert vm.qmp.command("query-status")["running"] is True


def test_guest_that_is_started_anew_makes_the_state_worth_nothing(files: Files) -> None:
    with files.start() as vm:
        files.leave(vm)
    with files.start() as vm:
        assert not files.mark.exists()


def test_memory_whose_file_has_lost_its_name_goes_into_the_state(files: Files) -> None:
    with files.start() as vm:
        vm.console.wait(b"tick 3")
        files.memory.unlink()
        files.memory.write_bytes(bytes(64 << 20))  # another one
        files.leave(vm)
        assert not files.mark.exists()
        before = last_tick(vm)
    with files.start("-incoming", f"file:{files.state}") as vm:
        assert before < next_tick(vm) < before + 100


def test_memory_that_was_exchanged_beside_its_mark_is_refused(files: Files) -> None:
    with files.start() as vm:
        files.leave(vm)
    whole = files.memory.read_bytes()
    files.memory.write_bytes(bytes(len(whole)))
    assert "was changed or exchanged; nothing was loaded" in files.refused()
    files.memory.write_bytes(whole)  # a copy will do
    with files.start("-incoming", f"file:{files.state}") as vm:
        assert vm.qmp.command("query-status")["running"] is True


def test_mark_is_written_through_no_link_of_somebody_else(files: Files, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    Path(f"{files.mark}.new").symlink_to(victim)
    with files.start() as vm:
        files.leave(vm)
    assert victim.read_text() == "precious"
    assert files.mark.is_file()
    assert not files.mark.is_symlink()


@pytest.mark.skipif(abi() < 1, reason="this kernel has no Landlock")
def test_guest_goes_on_from_files_inside_a_sandbox(files: Files) -> None:
    with files.start() as vm:
        files.leave(vm)
    with files.start("-incoming", f"file:{files.state}", "-sandbox", "on") as vm:
        assert vm.qmp.command("query-status")["running"] is True
        assert not files.mark.exists()


@pytest.mark.parametrize("shared", [True, False])
def test_saving_leaves_nobody_behind(files: Files, shared: bool) -> None:
    with files.start() as vm:
        vm.console.wait(b"tick 1")
        before = vm.footprint()
        files.leave(vm, shared=shared)
        assert vm.footprint() == before


def test_ignoring_shared_memory_in_mode_normal_is_refused(files: Files) -> None:
    with files.start() as vm:
        on = [{"capability": "x-ignore-shared", "state": True}]
        vm.qmp.command("migrate-set-capabilities", capabilities=on)
        with pytest.raises(QmpError, match="is for mode cpr-reboot, not normal"):
            vm.qmp.command("migrate", uri=f"file:{files.state}")
        assert not files.state.exists()
