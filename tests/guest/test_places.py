"""Places where a program may find itself: PID 1, no privileges, no standard input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from faulty import faulty
from harness import Vm

OWN_USERS = (
    ("--map-root-user",) if os.geteuid() else ()
)  # without privileges only in a user namespace of one's own

WRAPPERS = {
    "as-pid-1": ("unshare", *OWN_USERS, "--pid", "--fork", "--mount-proc"),
    "without-privileges": ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"),
    "stdin-closed": ("sh", "-c", 'exec "$@" <&-', "sh"),
    "all-closed": ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"),
}
FAILURES = Path(__file__).parents[2] / "docs" / "reference" / "failures.md"
RECIPE = FAILURES.read_text().partition("```sh\n")[2].partition("```")[0]  # of an init
WRAPPERS["under-our-init"] = (*WRAPPERS["as-pid-1"], "sh", "-c", RECIPE, "sh")
LOST = "import instar.migration.incoming as i\nimport os\ndef bad(*a): os.kill(os.getpid(), 9)\ni.Incoming._go = bad\n"


@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
def test_update_works_there(ticker: Path, wrapper: tuple[str, ...]) -> None:
    with Vm("-kernel", str(ticker), wrapper=wrapper) as vm:
        vm.console.wait(b"tick 1")
        before = [vm.process.pid, *vm.children()]
        for _ in range(3):
            assert vm.update()["status"] == "completed"
            vm.console.wait(b"tick", len(vm.console.text))
        assert [vm.process.pid, *vm.children()] == before
        vm.console.send(b"exit\r")
        assert vm.wait_exit() == 0


def test_program_as_pid_1_is_pid_1(ticker: Path) -> None:
    with Vm("-kernel", str(ticker), wrapper=WRAPPERS["as-pid-1"]) as vm:
        vm.console.wait(b"tick 1")
        (child,) = vm.children()
        assert Path(f"/proc/{child}/status").read_text().split("NSpid:")[1].split()[1] == "1"


def test_update_as_pid_1_notes_that_there_is_no_guardian(ticker: Path) -> None:
    with Vm("-kernel", str(ticker), wrapper=WRAPPERS["as-pid-1"]) as vm:
        vm.console.wait(b"tick 1")
        notes = vm.update()["x-update"]["notes"]
        assert any("process 1 of its PID namespace" in note for note in notes)


def test_guardian_can_take_over_under_the_init_that_is_proposed(
    ticker: Path, tmp_path: Path
) -> None:
    with Vm("-kernel", str(ticker), wrapper=WRAPPERS["under-our-init"]) as vm:
        vm.console.wait(b"tick 1")
        uri = vm.prepare_update(program=faulty(tmp_path, LOST))
        vm.qmp.command("migrate", uri=uri)
        vm.qmp.wait_event("MIGRATION", status="failed")
        assert vm.qmp.command("query-migrate")["x-update"]["owner"] == "old-by-guardian"
        vm.console.wait(b"tick", len(vm.console.text))
        vm.qmp.command("quit")
        assert vm.wait_exit() == 128 + 9  # of what it has started
