"""The files of a release are removed under its running VM: updates are refused by name, and work when they are back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness import PROGRAM, QmpError, Vm
from transfer_pair import unix

SOURCE = Path(__file__).resolve().parents[2] / "src"


@pytest.mark.parametrize("updated", [False, True], ids=["at first", "after an update"])
def test_release_that_is_gone_refuses_updates_and_says_so(
    ticker: Path, tmp_path: Path, updated: bool
) -> None:
    home = tmp_path / "release"
    shutil.copytree(SOURCE, home)
    program = tmp_path / "instar-system"
    program.write_text(PROGRAM.read_text().replace(str(SOURCE), str(home)))
    program.chmod(0o755)
    with Vm("-kernel", str(ticker), program=program) as vm:
        vm.console.wait(b"tick 1")
        for _ in range(updated):
            vm.update()
        vm.qmp.command("query-status")
        home.rename(tmp_path / "away")
        before = vm.footprint()
        vm.qmp.command(
            "migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}]
        )
        for check in (True, False):
            with pytest.raises(QmpError, match="this release is not on the disk any more"):
                x_update(vm, check)
        with pytest.raises(QmpError, match="this release is not on the disk any more"):
            vm.update()
        vm.qmp.command("migrate-set-parameters", mode="cpr-transfer")
        channels = [
            {"channel-type": kind, "addr": unix(tmp_path / kind)} for kind in ("main", "cpr")
        ]
        with pytest.raises(QmpError, match="No such file"):  # of a target, not of this release
            vm.qmp.command("migrate", channels=channels)
        assert vm.footprint() == before
        vm.console.wait(b"tick", len(vm.console.text))
        (tmp_path / "away").rename(home)
        vm.update()


def x_update(vm: Vm, check: bool) -> None:
    """Try it; QmpError says why not."""
    vm.qmp.command("x-update", check=check)
    report = vm.qmp.wait_event(("UPDATE_FAILED", "UPDATE_CHECKED")[check])["data"]
    raise QmpError(report.get("reason", ""))
