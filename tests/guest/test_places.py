"""Places where a program may find itself: PID 1, no privileges, no standard input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
