"""Back to a release before this one, and up again: the rehearsal asks what it reads, and that is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import PROGRAM, Vm
from instar._version import VERSION
from older_program import make_program
from tickers import Ticker, status
from transfer_pair import Pair

BEFORE = {"virtio-net": 1, "netdev": 1, "migration-settings": 2}  # these have had versions since
WRITTEN = (
    "states are written for version 0.0.9: migration-settings v2 (here v3), netdev v1 (here v2), "
    "virtio-net v1 (here v2)"
)
WANTED = (
    "virtio-net/nic: the reader wants state virtio-net as v1, this program (0.2.0) writes v2; "
    "the guest was not stopped"
)
READER_SAYS = (
    "virtio-net/nic: state virtio-net is v2, this program (0.0.9) reads v1; "
    "version 0.2.0, which wrote it, or a later one is needed; nothing was loaded"
)
UNREHEARSED = (
    "no rehearsal: states are written in this program's versions, an older one may refuse them"
)
TURNS = 10
BAD = re.compile(rb"stall|hung task|I/O error|blocked for more|Oops|BUG:|WARNING:|DISK ERROR")


@pytest.fixture
def network(tmp_path: Path) -> list[str]:
    backend = f"stream,id=n0,server=on,addr.type=unix,addr.path={tmp_path}/net"
    return ["-netdev", backend, "-device", "virtio-net-device,netdev=n0,id=nic"]


@pytest.fixture
def vm(guest: Ticker, network: list[str]):
    with guest.vm(*network) as machine:
        machine.console.wait(b"tick 1")
        yield machine


def end_of(vm: Vm, program: Path) -> dict:
    """Try to go on as this program; returns the report of how that ended."""
    vm.prepare_update()  # for the capability events
    vm.qmp.command("x-update", program=str(program))
    while vm.qmp.command("query-migrate")["x-update"]["status"] == "running":
        continue
    return vm.qmp.command("query-migrate")["x-update"]


def runs_on(vm: Vm, pid: int) -> bool:
    vm.console.wait(b"tick", len(vm.console.text))
    return (vm.process.pid, vm.process.poll(), status(vm).errors) == (pid, None, 0)


def test_ten_times_down_and_up_again_under_disk_and_console_load_loses_nothing(
    debian, network: list[str], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    before = make_program(tmp_path, "0.0.9", BEFORE)
    with Vm(
        *debian.arguments("console=ttyS0 quiet instar.diskverify"), *network,
        "-drive", f"file={disk},if=none,id=d0,format=raw", "-device", "virtio-blk-device,drive=d0",
        size=256,
    ) as vm:  # fmt: skip
        vm.console.wait(b"instar-guest:")
        vm.console.send(
            b"stty -echo; ip link set eth0 up; n=0; while n=$((n+1)); do echo COUNT $n; done\n"
        )
        vm.console.wait(b"COUNT 1\r\n")
        pid = vm.process.pid
        for _ in range(TURNS):
            for program, way, notes in (
                (before, (VERSION, "0.0.9"), [WRITTEN]),
                (None, ("0.0.9", VERSION), []),
            ):
                vm.console.wait(b"DISK OK", len(vm.console.text))
                report = vm.update(program=program, uri="memfd:")["x-update"]
                assert (report["old-version"], report["new-version"]) == way
                assert (report["old-pid"], report["new-pid"]) == (pid, pid)
                assert report.get("notes", []) == notes
        vm.console.wait(b"DISK OK", len(vm.console.text))
        vm.console.wait(b"COUNT", len(vm.console.text))
        vm.qmp.command("stop")
        vm.console.pull_all()
        counts = [int(n) for n in re.findall(rb"COUNT (\d+)\r\n", vm.console.text)]
        assert counts == list(range(1, len(counts) + 1))
        assert not BAD.search(vm.console.text), BAD.search(vm.console.text)
        assert vm.said() == ""


def test_setting_that_the_release_before_does_not_have_is_reported(vm: Vm, tmp_path: Path) -> None:
    pid = vm.process.pid
    vm.qmp.command("migrate-set-parameters", **{"x-update-timeout": 20000})
    before = make_program(tmp_path, "0.0.9", {"migration-settings": 1})
    report = end_of(vm, before)
    assert (report["status"], report["new-version"]) == ("completed", "0.0.9")
    assert report["notes"] == [
        "states are written for version 0.0.9: migration-settings v1 (here v3)",
        "version 0.0.9 has no place for migration-settings.settings",
    ]
    assert vm.qmp.command("query-migrate-parameters")["x-update-timeout"] == 10000
    assert runs_on(vm, pid)


def test_release_before_whose_versions_this_one_does_not_write_is_refused_with_what_is_needed(
    guest: Ticker, network: list[str], tmp_path: Path
) -> None:
    before = make_program(tmp_path, "0.0.9", {"virtio-net": 1})
    after = make_program(tmp_path, "0.2.0", {}, {"virtio-net": 2})
    with guest.vm(*network, program=after) as vm:
        vm.console.wait(b"tick 1")
        report = end_of(vm, before)
        assert report["reason"] == f"rehearsal of {before}: {WANTED}"
        assert (report["status"], report["complaints"][0]) == ("refused", WANTED)
        assert report["complaints"][1:] == [READER_SAYS]
        assert runs_on(vm, vm.process.pid)
        assert end_of(vm, vm.argv[0])["status"] == "completed"


def test_release_before_is_refused_after_exec_without_a_rehearsal_and_with_one_it_goes_on(
    vm: Vm, tmp_path: Path
) -> None:
    pid = vm.process.pid
    before = make_program(tmp_path, "0.0.9", BEFORE)
    vm.qmp.command("migrate-set-parameters", **{"x-update-rehearsal": False})
    report = end_of(vm, before)
    assert (report["status"], report["owner"]) == ("failed", "old")
    assert (
        f"state virtio-net is v2, this program (0.0.9) reads v1; version {VERSION}"
        in report["reason"]
    )
    assert report["notes"] == [UNREHEARSED]
    assert runs_on(vm, pid)
    vm.qmp.command("migrate-set-parameters", **{"x-update-rehearsal": True})
    assert end_of(vm, before)["new-version"] == "0.0.9"
    assert runs_on(vm, pid)


def test_check_tells_what_the_release_before_would_get(vm: Vm, tmp_path: Path) -> None:
    before = make_program(tmp_path, "0.0.9", BEFORE)
    vm.qmp.command("x-update", program=str(before), check=True)
    while (report := vm.qmp.command("query-migrate")["x-update"])["status"] == "running":
        continue
    assert (report["status"], report["notes"]) == ("ready", [WRITTEN])


# A part that the release before does not know at all, and how bright it is.
LAMP = """
from instar.cli import vm
from instar.cpr.state import State, u
@state.state("lamp", version=1)
class LampState(State):
    bright: int = u(8, "How bright it is.")
class Lamp:
    state_id = "lamp"
    state_class = LampState
    def save_state(self): return LampState(bright={})
    def load_state(self, loaded): pass
lamp, others = Lamp(), vm.Vm.things
vm.Vm.things = lambda self: [*others(self), lamp]
"""


def test_part_that_the_release_before_does_not_know_is_left_if_it_was_not_used(
    guest: Ticker, tmp_path: Path
) -> None:
    later = make_program(tmp_path, "0.2.0", {}, more=LAMP.format(0))
    with guest.vm(program=later) as vm:
        vm.console.wait(b"tick 1")
        report = end_of(vm, PROGRAM)
        assert (report["status"], report["new-version"]) == ("completed", VERSION)
        assert report["notes"] == [
            f"version {VERSION} does not know lamp, which is as at the start"
        ]
        assert runs_on(vm, vm.process.pid)
        assert end_of(vm, later)["status"] == "completed"


def test_part_that_the_release_before_does_not_know_and_that_was_used_refuses(
    guest: Ticker, tmp_path: Path
) -> None:
    later = make_program(tmp_path, "0.2.0", {}, more=LAMP.format(7))
    with guest.vm(program=later) as vm:
        vm.console.wait(b"tick 1")
        report = end_of(vm, PROGRAM)
        assert report["reason"] == (
            f"rehearsal of {PROGRAM}: lamp: the reader does not know state lamp, this program (0.2.0) writes v1; "
            "the guest was not stopped"
        )
        assert report["status"] == "refused"
        assert runs_on(vm, vm.process.pid)


# A field that the release before may go on without.
GLOW = """
from instar.devices.plic.device import Plic
def glowing(self, save=Plic.save_state):
    saved = save(self)
    saved.state_kept = {"glow": 1}
    return saved
Plic.save_state = glowing
"""


def test_optional_field_of_a_later_release_is_kept_and_handed_on(
    ticker: Path, tmp_path: Path
) -> None:
    later = make_program(tmp_path, "0.2.0", {}, more=GLOW)
    with Vm("-kernel", str(ticker), program=later) as vm:
        vm.console.wait(b"tick 1")
        for _ in range(2):  # it does not know the field, and neither does the one after it
            report = end_of(vm, PROGRAM)
            assert (report["status"], report["new-version"]) == ("completed", VERSION)
            assert report["notes"] == ["plic.glow is of a newer version, and is kept"]
        assert runs_on(vm, vm.process.pid)


def test_transfer_to_the_release_before_writes_what_it_reads(
    guest: Ticker, tmp_path: Path
) -> None:
    before = make_program(tmp_path, "0.0.9", {"virtio-net": 1})
    card = [
        "-netdev",
        "none,id=n0,queues=1,vnet_hdr=off",
        "-device",
        "virtio-net-device,netdev=n0",
    ]
    with guest.vm(*card) as vm:
        vm.console.wait(b"tick 1")
        pair = Pair(vm)
        with pair.target(program=before) as target:
            report = pair.transfer()["x-update"]
            assert (report["status"], report["new-version"]) == ("completed", "0.0.9")
            assert report["notes"] == [
                "states are written for version 0.0.9: virtio-net v1 (here v2)"
            ]
            target.connect()
            assert runs_on(target, target.process.pid)
