"""A rehearsal finds what would lose the guest while it still runs: a sentence, nothing changed, a right try works."""

from __future__ import annotations

import pytest

from harness import Vm
from tickers import Ticker


@pytest.fixture
def vm(guest: Ticker):
    with guest.vm() as machine:
        machine.console.wait(b"tick 1")
        yield machine


def refused(vm: Vm, command: list[str]) -> str:
    """Try this command; returns why not."""
    uri = vm.prepare_update(command=command)
    vm.qmp.command("migrate", uri=uri)
    vm.qmp.wait_event("MIGRATION", status="failed")
    return vm.qmp.command("query-migrate")["error-desc"]


def incoming(vm: Vm, *words: str) -> list[str]:
    return [*words, "-incoming", f"file:{vm.folder}/vm.state"]


def without(words: list[str], option: str) -> list[str]:
    at = words.index(option)
    return words[:at] + words[at + 2 :]


def changed(words: list[str], old: str, new: str) -> list[str]:
    return [word.replace(old, new) for word in words]


WRONG = [
    (lambda vm: incoming(vm, "/bin/true"), "it ended without an answer"),
    (lambda vm: incoming(vm, "/bin/sh", "-c", "exit 3"), "it ended without an answer"),
    (lambda vm: incoming(vm, *vm.argv, "-bogus"), "unknown option '-bogus'"),
    (
        lambda vm: incoming(vm, *changed(vm.argv, "64M", "128M")),
        "-m: the machine has 64 MiB, the command line 128 MiB",
    ),
    (
        lambda vm: incoming(vm, *changed(vm.argv, "ram0", "ram1")),
        "-machine: memory-backend is ram0, on the command line ram1",
    ),
    (lambda vm: incoming(vm, *vm.argv, "-smp", "2"), "cpus is 1, on the command line 2"),
    (
        lambda vm: incoming(vm, *vm.argv, "-device", "virtio-rng-device"),
        "-device in slot 0: the machine has none",
    ),
    (lambda vm: incoming(vm, *without(vm.argv, "-qmp")), "the command line lacks it"),
    (
        lambda vm: [*vm.argv, "-append", "-incoming"],
        "the command line has no -incoming: the guest would be started anew",
    ),
]


@pytest.mark.parametrize(("command", "text"), WRONG, ids=[text for _, text in WRONG])
def test_program_that_could_not_take_over_is_refused(vm: Vm, command, text: str) -> None:
    vm.update()
    footprint = vm.footprint()
    error = refused(vm, command(vm))
    assert error.startswith("rehearsal of ")
    assert text in error
    assert error.endswith("; the guest was not stopped")
    assert not [e for e in vm.qmp.events if e["event"] == "STOP"]
    vm.console.wait(b"tick", len(vm.console.text))
    assert vm.footprint() == footprint
    vm.update()


def test_update_over_its_budget_is_refused_and_within_it_goes_through(vm: Vm) -> None:
    vm.qmp.command("migrate-set-parameters", **{"x-update-budget": 1})
    error = refused(vm, incoming(vm, *vm.argv))
    assert "x-update-budget is 1 ms; the guest was not stopped" in error
    vm.qmp.command("migrate-set-parameters", **{"x-update-budget": 600000})
    vm.update()
