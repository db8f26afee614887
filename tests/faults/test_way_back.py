"""A new program that fails after exec: the old one goes on, in the same process or, if that is lost, in another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from faulty import faulty
from harness import Vm
from tickers import Ticker

GO = "import instar.migration.incoming as i\n"
RAISES = {
    "before it commits": GO + "def bad(*a): raise RuntimeError('boom')\ni.Incoming._go = bad\n",
    "while it builds": "import instar.cli.system as s\n"
    "def bad(*a, **k): raise RuntimeError('boom')\ns.assemble = bad\n",
    "with SystemExit": "import instar.cli.system as s\n"
    "def bad(*a, **k): raise SystemExit('boom')\ns._understood = bad\n",
    "too late": GO + "import time\ndef bad(*a):\n time.sleep(60)\ni.Incoming._go = bad\n",
}
LOST = {
    "kill -9 of itself": GO
    + "import os\ndef bad(*a): os.kill(os.getpid(), 9)\ni.Incoming._go = bad\n",
    "segfault": GO + "import os\ndef bad(*a): os.kill(os.getpid(), 11)\ni.Incoming._go = bad\n",
    "stops itself": GO
    + "import os\ndef bad(*a): os.kill(os.getpid(), 19)\ni.Incoming._go = bad\n",
    "ends as if all was well": GO + "import os\ndef bad(*a): os._exit(0)\ni.Incoming._go = bad\n",
}


def fail(vm: Vm, program: Path) -> str:
    """Update to a faulty program; returns what the one that goes on says about it."""
    uri = vm.prepare_update(program=program)
    vm.qmp.command("migrate-set-parameters", **{"x-update-timeout": 4000})
    vm.qmp.command("migrate", uri=uri)
    vm.qmp.wait_event("MIGRATION", status="failed")
    return vm.qmp.command("query-migrate")["error-desc"]


@pytest.fixture
def vm(guest: Ticker):
    with guest.vm() as machine:
        machine.console.wait(b"tick 1")
        machine.update()
        yield machine


@pytest.mark.parametrize("fault", RAISES)
def test_program_that_raises_gives_way_to_the_old_one_in_the_same_process(
    vm: Vm, tmp_path: Path, fault: str
) -> None:
    footprint = vm.footprint()
    error = fail(vm, faulty(tmp_path, RAISES[fault]))
    assert ("did not go on within 4000 ms" if fault == "too late" else "boom") in error
    assert vm.process.poll() is None
    assert vm.qmp.command("query-status")["running"] is True
    vm.console.wait(b"tick", len(vm.console.text))
    after = vm.footprint()
    after["environ"].remove(b"INSTAR_CPR_FAILED")  # the kernel shows what exec was given
    assert after == footprint
    vm.update()
    assert vm.footprint() == footprint


@pytest.mark.parametrize("fault", LOST)
def test_program_that_is_lost_is_replaced_by_the_guardian(
    vm: Vm, tmp_path: Path, fault: str
) -> None:
    error = fail(vm, faulty(tmp_path, LOST[fault]))
    assert error in (
        "the new program ended before it went on",
        "the new program did not go on within 6000 ms and was ended",
    )
    assert vm.process.wait(60) is not None
    assert vm.qmp.command("query-status")["running"] is True
    vm.console.wait(b"tick", len(vm.console.text))
    vm.update()
    vm.console.wait(b"tick", len(vm.console.text))
    vm.qmp.command("quit")


def test_kill_of_the_guardian_in_the_middle_costs_nothing(vm: Vm, tmp_path: Path) -> None:
    patch = (
        "import instar.cpr.adopted as c, os\nold = c.Adopted.commit\n"
        "def bad(self):\n os.kill(self.info['guardian'], 9)\n old(self)\nc.Adopted.commit = bad\n"
    )
    vm.update(program=faulty(tmp_path, patch))
    vm.console.wait(b"tick", len(vm.console.text))
    assert vm.children() == []
    os.kill(vm.process.pid, 0)


SETTLING = {
    "a monitor": "import instar.monitor.monitor as m\n"
    "def bad(*a, **k): raise RuntimeError('boom')\nm.Monitor.announce_version = bad\n",
    "what a later update needs": "import instar.migration.migration as m\n"
    "def bad(*a): raise RuntimeError('boom')\nm.Migration.get_ready = bad\n",
    "tidying up": "import instar.migration.migration as m\n"
    "def bad(*a): raise RuntimeError('boom')\nm.Migration.incoming_done = bad\n",
}


@pytest.mark.parametrize("fault", SETTLING)
def test_program_that_fails_after_its_commit_keeps_the_guest(
    vm: Vm, tmp_path: Path, fault: str
) -> None:
    vm.qmp.command("migrate", uri=vm.prepare_update(program=faulty(tmp_path, SETTLING[fault])))
    vm.console.wait(b"tick", len(vm.console.text))
    vm.until_said(b"RuntimeError('boom')")
    seen = len(vm.console.text)
    vm.console.wait(b"tick", seen)
    assert vm.process.poll() is None


def test_program_that_loses_the_incoming_channel_writes_nothing_to_the_memory(
    vm: Vm, tmp_path: Path
) -> None:
    anew = tmp_path / "started-anew"
    patch = (
        "import os\n"
        "if 'INSTAR_CPR_FAILED' not in os.environ:\n"
        " at = sys.argv.index('-incoming'); del sys.argv[at:at + 2]\n"
        " import instar.boards.virt as v\n"
        f" v.VirtBoard.reset = lambda *a: open({str(anew)!r}, 'w')\n"
    )
    vm.qmp.command("migrate-set-parameters", **{"x-update-rehearsal": False})
    assert "would start the guest anew" in fail(vm, faulty(tmp_path, patch))
    assert not anew.exists()
    vm.console.wait(b"tick", len(vm.console.text))
