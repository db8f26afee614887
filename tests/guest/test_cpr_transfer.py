"""A guest is handed over to a program that was started beside the one that has it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import QmpError, Vm
from transfer_pair import Pair

TICK = re.compile(rb"tick (\d+)\r?\n")


def last_tick(vm: Vm) -> int:
    vm.console.pull_all()
    return int(TICK.findall(vm.console.text)[-1])


def next_tick(vm: Vm) -> int:
    start = vm.console.wait(b"\n", len(vm.console.text))
    vm.console.wait(b"\n", start + 1)
    return int(TICK.findall(vm.console.text, start)[0])


@pytest.fixture
def pair(ticker: Path):
    with Vm("-kernel", str(ticker)) as vm:
        vm.console.wait(b"tick 3")
        yield Pair(vm)


def test_transfer_guest_goes_on_in_the_target_and_never_again_in_the_source(pair: Pair) -> None:
    with pair.target() as target:
        done = pair.transfer()
        assert done["status"] == "completed"
        assert done["x-update"]["mode"] == "cpr-transfer"
        target.connect()
        assert target.qmp.command("query-migrate")["status"] == "completed"
        assert target.qmp.command("query-status")["running"] is True
        before = last_tick(pair.vm)
        assert before < next_tick(target) < before + 100
        assert pair.vm.qmp.command("query-status")["status"] == "postmigrate"
        for command in ("cont", "system_reset"):
            with pytest.raises(QmpError, match=f"process {target.process.pid}.* never runs here"):
                pair.vm.qmp.command(command)
        target.console.wait(b"tick", len(target.console.text))
        target.qmp.command("quit")
        target.wait_exit()
        with pytest.raises(QmpError, match="never runs here again"):
            pair.vm.qmp.command("cont")
