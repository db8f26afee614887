"""cpr-transfer with a target or source that fails, lies, hangs or is killed: exactly one program has the guest."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import struct
from pathlib import Path
from zlib import crc32

import pytest

from faulty import faulty
from harness import QmpError, Vm
from instar.sandbox.landlock import abi
from transfer_pair import Pair, alive, unix

needs_landlock = pytest.mark.skipif(abi() < 6, reason="this kernel lets a sandbox send signals")
GO = "import instar.migration.incoming as i\n"
COMMIT = "import instar.cpr.transfer as t\nimport os\n"
LOCKED = (  # between taking the decision and counting it
    "import instar.cpr.lease as l\nold = os.pwrite\n"
    "def bad(*a): os.kill(os.getpid(), {}); return old(*a)\nos.pwrite = bad\n"
)
REFUSES = {
    "while it builds": (
        "import instar.cli.system as s\ndef bad(*a, **k): raise RuntimeError('boom')\ns.assemble = bad\n",
        "the target refused: boom",
    ),
    "before it commits": (
        GO + "def bad(*a): raise RuntimeError('boom')\ni.Incoming._go = bad\n",
        "the target refused: boom",
    ),
    "with SystemExit": (
        GO + "def bad(*a): raise SystemExit('boom')\ni.Incoming._go = bad\n",
        "boom",
    ),
    "ends while it builds": (
        "import instar.cli.system as s\ndef bad(*a, **k): os._exit(0)\ns.assemble = bad\n",
        "the other program hung up",
    ),
    "kill -9 before it commits": (
        GO + "def bad(*a): os.kill(os.getpid(), 9)\ni.Incoming._go = bad\n",
        "the other program hung up",
    ),
    "kill -9 while it decides": (COMMIT + LOCKED.format(9), "the other program hung up"),
    "hangs while it builds": (
        "import instar.cli.system as s\nimport time\ndef bad(*a, **k): time.sleep(60)\ns.assemble = bad\n",
        "did not answer within 3000 ms",
    ),
    "stops itself before it commits": (
        GO + "def bad(*a): os.kill(os.getpid(), 19)\ni.Incoming._go = bad\n",
        "did not answer within 3000 ms",
    ),
    "stops itself while it decides": (
        COMMIT + LOCKED.format(19),
        "did not answer within 3000 ms",
    ),
    "says that it has taken over and has not": (
        GO + "def bad(self, *a):\n"
        " self._migration._arrival.done(self.report)\n import time; time.sleep(60)\ni.Incoming._go = bad\n",
        "says that it has taken over, but it has not",
    ),
}


@pytest.fixture
def pair(ticker: Path, tmp_path: Path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    with Vm("-kernel", str(ticker), "-drive", f"file={disk},if=virtio,format=raw") as vm:
        vm.console.wait(b"tick 1")
        pair = Pair(vm)
        vm.qmp.command("migrate-set-parameters", **{"x-update-timeout": 3000})
        yield pair


def assert_transfers(pair: Pair) -> None:
    """What failed left nothing behind that keeps the next one from working."""
    pair.vm.qmp.command("migrate-set-parameters", **{"x-update-timeout": 30000})
    with pair.target() as target:
        pair.transfer()
        target.connect().console.wait(b"tick")
        assert target.qmp.command("query-status")["running"] is True


@pytest.mark.parametrize("fault", REFUSES)
def test_target_that_fails_leaves_the_guest_where_it_is(
    pair: Pair, tmp_path: Path, fault: str
) -> None:
    patch, text = REFUSES[fault]
    before = pair.vm.footprint()
    with pair.target(program=faulty(tmp_path, "import os\n" + patch)) as target:
        assert text in pair.fail()
        target.process.kill() if "sleep" in patch else target.wait_exit()
    assert pair.vm.footprint() == before
    assert_transfers(pair)


def test_target_that_is_killed_after_it_has_taken_over_takes_the_guest_along(
    pair: Pair, tmp_path: Path
) -> None:
    patch = (
        "import instar.migration.migration as m\nimport os\n"
        "def bad(*a): os.kill(os.getpid(), 9)\nm.Migration.incoming_done = bad\n"
    )
    with pair.target(program=faulty(tmp_path, patch)) as target:
        pair.transfer()
        target.wait_exit()
        assert "has taken over without an answer" in pair.vm.said()
        with pytest.raises(QmpError, match="never runs here again"):
            pair.vm.qmp.command("cont")


def test_source_that_is_killed_after_it_gave_up_leaves_the_guest_to_the_target(
    pair: Pair, tmp_path: Path
) -> None:
    source = pair.vm.process.pid
    patch = (
        GO + "import os, time\nold = i.Incoming._go\n"
        f"def bad(*a):\n os.kill({source}, 9)\n old(*a)\ni.Incoming._go = bad\n"
    )
    with pair.target(program=faulty(tmp_path, patch)) as target:
        pair.migrate()
        pair.vm.wait_exit()
        target.connect().console.wait(b"tick")
        assert target.qmp.command("query-status")["running"] is True


def test_source_that_is_stopped_while_the_target_takes_over_never_goes_on(
    pair: Pair, tmp_path: Path
) -> None:
    source = pair.vm.process.pid
    patch = (
        GO + "import os, time\nold = i.Incoming._go\n"
        f"def bad(*a):\n os.kill({source}, 19)\n old(*a)\ni.Incoming._go = bad\n"
    )
    with pair.target(program=faulty(tmp_path, patch)) as target:
        pair.migrate()
        target.connect().console.wait(b"tick")
        pair.vm.process.send_signal(signal.SIGCONT)
        pair.vm.qmp.wait_event("MIGRATION", status="completed")
        with pytest.raises(QmpError, match="never runs here again"):
            pair.vm.qmp.command("cont")
        target.console.wait(b"tick", len(target.console.text))


def test_target_that_stands_still_and_wakes_later_finds_the_guest_gone(
    pair: Pair, tmp_path: Path
) -> None:
    patch = GO + "import os\ndef bad(*a): os.kill(os.getpid(), 19)\ni.Incoming._go = bad\n"
    with pair.target(program=faulty(tmp_path, patch)) as target:
        pair.fail()
        assert target.wait_exit() == -signal.SIGKILL
    assert_transfers(pair)


def test_cancel_before_the_target_is_ready_and_after_it_is(pair: Pair) -> None:
    before = pair.vm.footprint()
    pause = {"capability": "pause-before-switchover", "state": True}
    with pair.target(incoming="defer") as target:
        pair.migrate()
        target.connect()
        assert pair.vm.qmp.command("query-status")["running"] is True
        pair.vm.qmp.command("migrate_cancel")
        pair.vm.qmp.wait_event("MIGRATION", status="cancelled")
        assert target.wait_exit() == 1
    pair.vm.qmp.command("migrate-set-capabilities", capabilities=[pause])
    with pair.target() as target:
        pair.migrate()
        pair.vm.qmp.wait_event("MIGRATION", status="pre-switchover")
        pair.vm.qmp.command("migrate_cancel")
        pair.vm.qmp.wait_event("RESUME")
        assert target.wait_exit() == 1
    pair.vm.qmp.command("migrate-set-capabilities", capabilities=[pause | {"state": False}])
    assert pair.vm.footprint() == before
    assert_transfers(pair)


HOLDS = {
    "its disks": (GO + "import os\ndef bad(*a): os.kill(os.getpid(), 19)\ni.Incoming._commit = bad\n", "paused"),
    "the decision": (COMMIT + LOCKED.format(19), "postmigrate"),
}  # fmt: skip


@needs_landlock
@pytest.mark.parametrize("what", HOLDS)
def test_target_that_hangs_and_may_not_be_ended_gives_the_guest_back_by_its_end(
    ticker: Path, tmp_path: Path, what: str
) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    patch, status = HOLDS[what]
    words = ("-kernel", str(ticker), "-drive", f"file={disk},if=virtio,format=raw")
    with Vm(*words, "-sandbox", "on") as vm:
        vm.console.wait(b"tick 1")
        pair = Pair(vm)
        vm.qmp.command("migrate-set-parameters", **{"x-update-timeout": 4000})
        with pair.target(program=faulty(tmp_path, patch)) as target:
            pair.migrate()
            vm.qmp.wait_event("MIGRATION", status="failed")
            assert vm.qmp.command("query-status")["status"] == status
            with pytest.raises(QmpError):
                vm.qmp.command("cont")
            assert "goes on here when it has ended" in vm.said()
            target.process.kill()
            vm.qmp.wait_event("RESUME")
        vm.console.wait(b"tick", len(vm.console.text))
        assert_transfers(pair)


@needs_landlock
def test_target_that_wakes_with_the_decision_has_the_guest_and_the_source_says_so(
    ticker: Path, tmp_path: Path
) -> None:
    with Vm("-kernel", str(ticker), "-sandbox", "on") as vm:
        vm.console.wait(b"tick 1")
        pair = Pair(vm)
        vm.qmp.command("migrate-set-parameters", **{"x-update-timeout": 4000})
        once = LOCKED.format(19).replace("return", "os.pwrite = old; return")
        with pair.target(program=faulty(tmp_path, COMMIT + once)) as target:
            pair.migrate()
            vm.qmp.wait_event("MIGRATION", status="failed")
            target.process.send_signal(signal.SIGCONT)
            target.connect().console.wait(b"tick")
            with pytest.raises(QmpError, match=f"process {target.pid}.* never runs here again"):
                vm.qmp.command("cont")
            report = vm.qmp.command("query-migrate")["x-update"]
            assert (report["owner"], report["new-pid"]) == ("new", target.pid)


def test_disk_that_is_resized_while_the_target_waits_has_its_new_size_there(pair: Pair) -> None:
    with pair.target(incoming="defer") as target:
        pair.migrate()
        target.connect()
        pair.vm.qmp.command("block_resize", device="virtio0", size=2 << 20)
        target.qmp.command("migrate-incoming", channels=[pair.channels[0]])
        pair.vm.qmp.wait_event("MIGRATION", status="completed")
        (disk,) = target.qmp.command("query-block")
        assert disk["inserted"]["image"]["virtual-size"] == 2 << 20


def test_target_without_a_descriptor_for_the_source_refuses_at_once(pair: Pair) -> None:
    pair.vm.qmp.command("migrate-set-parameters", **{"x-update-timeout": 60000})
    with pair.target(incoming="defer") as target:
        pair.migrate()
        target.connect()
        for _ in range(
            2
        ):  # after the first answer it has seen the console's client, too; then it has accepted it
            target.qmp.command("query-status")
        used = {int(link.name) for link in Path(f"/proc/{target.pid}/fd").iterdir()}
        free = [n for n in range(len(used) + 2) if n not in used]
        limits = (free[0] + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1])  # the listener's
        resource.prlimit(target.pid, resource.RLIMIT_NOFILE, limits)
        target.qmp.command("migrate-incoming", channels=[pair.channels[0]])
        pair.vm.qmp.wait_event("MIGRATION", status="failed")
        assert "the other program" in pair.vm.qmp.command("query-migrate")["error-desc"]
        target.wait_exit()
        assert "cannot accept the source: Too many open files" in target.said()
    assert_transfers(pair)


def test_what_would_not_go_along_any_more_is_refused(pair: Pair, tmp_path: Path) -> None:
    patch = GO + "import os\ndef bad(*a): os.kill(os.getpid(), 19)\ni.Incoming._go = bad\n"
    commands = ("stop", {}), ("balloon", {"value": 1 << 20}), ("netdev_del", {"id": "n0"})
    with pair.target(program=faulty(tmp_path, patch)):
        pair.migrate()
        pair.vm.qmp.wait_event("MIGRATION", status="device")
        for name, arguments in commands:
            with pytest.raises(QmpError, match=r"not finalized yet|machine is finish-migrate"):
                pair.vm.qmp.command(name, **arguments)
        pair.vm.qmp.wait_event("MIGRATION", status="failed")
        pair.vm.console.wait(b"tick", len(pair.vm.console.text))


def test_card_without_a_back_end_goes_along(ticker: Path) -> None:
    words = ("-netdev", "none,id=n0", "-device", "virtio-net-device,netdev=n0")
    with Vm("-kernel", str(ticker), *words) as vm:
        vm.console.wait(b"tick 1")
        assert_transfers(Pair(vm))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_target_that_is_told_to_end_leaves_no_socket(pair: Pair, number: int) -> None:
    with pair.target() as target:
        target.process.send_signal(number)
        target.wait_exit()
        assert "ended before a guest came" in target.said()
    assert not pair.cpr.exists()
    pause = {"capability": "pause-before-switchover", "state": True}
    pair.vm.qmp.command("migrate-set-capabilities", capabilities=[pause])
    with pair.target() as target:
        pair.migrate()
        pair.vm.qmp.wait_event("MIGRATION", status="pre-switchover")
        target.process.send_signal(number)
        target.wait_exit()
    assert not pair.main.exists()
    pair.vm.qmp.command("migrate-continue", state="pre-switchover")
    pair.vm.qmp.wait_event("MIGRATION", status="failed")
    assert pair.vm.qmp.command("query-status")["running"] is True


def test_pid_file_names_who_has_the_guest(ticker: Path, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with Vm("-kernel", str(ticker), "-pidfile", str(path)) as vm:
        vm.console.wait(b"tick 1")
        pair = Pair(vm)
        with pair.target(program=faulty(tmp_path, REFUSES["before it commits"][0])) as target:
            pair.fail()
            target.wait_exit()
            assert int(path.read_text()) == vm.pid
        with pair.target() as target:
            pair.transfer()
            target.connect()
            assert int(path.read_text()) == target.pid
            vm.qmp.command("quit")
            vm.wait_exit()
            assert int(path.read_text()) == target.pid
            target.qmp.command("quit")
            target.wait_exit()
    assert not path.exists()


# QEMU's failures of this mode, by their numbers, with what happens here.


def test_f16_target_that_dies_before_it_listens(pair: Pair) -> None:
    reply = pair.vm.qmp.raw("migrate", channels=pair.channels)
    assert (
        reply["error"]["desc"]
        == f"Failed to connect to 'unix:{pair.cpr}': No such file or directory"
    )
    assert_transfers(pair)


def test_f17_target_that_fails_while_it_loads_gives_the_guest_back(
    pair: Pair, tmp_path: Path
) -> None:
    patch = (
        "import instar.migration.sections as s\n"
        "def bad(*a): raise RuntimeError('does not load')\ns.Loaded.apply = bad\n"
    )
    with pair.target(program=faulty(tmp_path, patch)) as target:
        assert pair.fail() == "the target refused: does not load"
        assert target.wait_exit() == 1
    assert_transfers(pair)


def test_f18_source_never_runs_what_it_has_handed_over(ticker: Path) -> None:
    with Vm("-kernel", str(ticker)) as vm:  # without a disk whose lock could help
        vm.console.wait(b"tick 1")
        pair = Pair(vm)
        with pair.target() as target:
            pair.transfer()
            target.connect()
            for command in ("cont", "system_reset"):
                with pytest.raises(QmpError, match="never runs here again"):
                    vm.qmp.command(command)
            target.qmp.command("quit")
            target.wait_exit()
        with pytest.raises(QmpError, match="never runs here again"):
            vm.qmp.command("cont")


def test_f19_uri_without_a_cpr_channel_is_refused(pair: Pair) -> None:
    reply = pair.vm.qmp.raw("migrate", uri=f"unix:{pair.main}")
    assert reply["error"]["desc"] == "missing 'cpr' migration channel"
    hmp = {"command-line": f"migrate unix:{pair.main}"}
    assert "missing 'cpr' migration channel" in pair.vm.qmp.command("human-monitor-command", **hmp)
    assert pair.vm.qmp.command("query-status")["running"] is True


@pytest.mark.parametrize("mode", ["normal", "cpr-reboot", "cpr-transfer", "cpr-exec"])
def test_f20_channels_without_a_main_one_are_refused(pair: Pair, mode: str) -> None:
    pair.vm.qmp.command("migrate-set-parameters", mode=mode)
    reply = pair.vm.qmp.raw("migrate", channels=pair.channels[1:])
    assert reply["error"]["desc"] == "Channel list has no main entry"
    assert pair.vm.qmp.command("query-status")["running"] is True


# Hostile programs on the sockets


def listener(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


HEADER = struct.Struct("<8sIIII")
SAYS = {
    "garbage": (os.urandom(4096), "it is none of ours"),
    "half a message": (HEADER.pack(b"INSTARTR", 1, 100, 0, 0) + b"x" * 50, "the other program "),
    "a message without end": (HEADER.pack(b"INSTARTR", 1, 1 << 31, 0, 0), "limits"),
    "descriptors": (HEADER.pack(b"INSTARTR", 1, 10, 0, 5), "limits"),
    "damage": (HEADER.pack(b"INSTARTR", 1, 1, 7, 0) + b"\xa0", "damaged"),
    "nonsense": (HEADER.pack(b"INSTARTR", 1, 1, crc32(b"\xa1"), 0) + b"\xa0", ""),
}


@pytest.mark.parametrize("what", SAYS)
def test_hostile_target_costs_nothing(pair: Pair, what: str) -> None:
    data, text = SAYS[what]
    before = pair.vm.footprint()
    with listener(pair.cpr) as sock:
        pair.migrate()
        peer, _ = sock.accept()
        peer.sendall(data)
        peer.close()
        pair.vm.qmp.wait_event("MIGRATION", status="failed")
    pair.cpr.unlink()
    assert text in pair.vm.qmp.command("query-migrate")["error-desc"]
    assert pair.vm.qmp.command("query-status")["running"] is True
    assert pair.vm.footprint() == before


def test_target_that_never_answers_costs_nothing(pair: Pair) -> None:
    with listener(pair.cpr):
        assert "did not answer within 3000 ms" in pair.fail()


def stranger(path: Path, data: bytes, fds: list[int] | None = None) -> None:
    """Say something, and wait to be sent away."""
    with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(ConnectionError):
        sock.connect(str(path))
        sock.sendall(data)
        if fds:
            socket.send_fds(sock, [b" "], fds)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass


def test_strangers_at_both_sockets_of_a_target_are_sent_away(pair: Pair) -> None:
    pause = {"capability": "pause-before-switchover", "state": True}
    pair.vm.qmp.command("migrate-set-capabilities", capabilities=[pause])
    with pair.target() as target:
        for data in (b"", os.urandom(100), HEADER.pack(b"INSTARTR", 1, 1 << 31, 0, 9)):
            stranger(pair.cpr, data)
        record = b"\xa0"
        too_many = HEADER.pack(b"INSTARTR", 1, len(record), crc32(record), 1) + record
        stranger(pair.cpr, too_many, [0, 0, 0])
        pair.migrate()
        pair.vm.qmp.wait_event("MIGRATION", status="pre-switchover")
        pair.vm.qmp.command("migrate-continue", state="pre-switchover")
        pair.vm.qmp.wait_event("MIGRATION", status="completed")
        target.connect().console.wait(b"tick")
        assert alive(target.process.pid)


# What is sent while the guest runs


AHEAD = {
    "a target that does not know of it": (
        "import instar.migration.arrival as a\nsay = a.Arrival._say\n"
        "def old(self, sock, record): record.pop('previews', 0); return say(self, sock, record)\n"
        "a.Arrival._say = old\n"
    ),
    "a target that cannot take it": (
        "import instar.migration.preview as p\np.take = lambda *a: None\n"
    ),
    "a target that answers nonsense": (
        "import instar.migration.arrival as a\na.ANSWER = 'nonsense'\n"
    ),
}


@pytest.mark.parametrize("what", AHEAD)
def test_transfer_without_a_look_ahead_sends_everything(
    pair: Pair, tmp_path: Path, what: str
) -> None:
    with pair.target() as target:
        short = pair.transfer()["ram"]["transferred"]
        target.connect().console.wait(b"tick")
        again = Pair(target)
        with again.target(program=faulty(tmp_path, AHEAD[what])) as other:
            assert again.transfer()["ram"]["transferred"] > 1.3 * short
            other.connect().console.wait(b"tick")


FORGETS = (
    "import instar.migration.migration as m\nfull = m.Migration.with_preview\n"
    "def bad(self, *a): self._previewed = None; return full(self, *a)\n"
)
LOSES = {
    "target that forgets it": (
        FORGETS + "m.Migration.with_preview = bad\n",
        "did not come; nothing was loaded",
    ),
    "target that ends while it looks": (
        "import os\nimport instar.migration.preview as p\np.take = lambda *a: os._exit(0)\n",
        "the other program hung up",
    ),
    "target that hangs while it looks": (
        "import time\nimport instar.migration.preview as p\np.take = lambda *a: time.sleep(60)\n",
        "did not answer within 3000 ms",
    ),
}


@pytest.mark.parametrize("what", LOSES)
def test_failure_of_the_look_ahead_leaves_the_guest_where_it_is(
    pair: Pair, tmp_path: Path, what: str
) -> None:
    patch, text = LOSES[what]
    before = pair.vm.footprint()
    with pair.target(program=faulty(tmp_path, patch)) as target:
        assert text in pair.fail()
        target.process.kill()
    assert pair.vm.footprint() == before
    assert_transfers(pair)


def test_two_transfers_in_a_row_and_an_update_in_between(ticker: Path) -> None:
    with Vm("-kernel", str(ticker)) as first:
        first.console.wait(b"tick 1")
        pair = Pair(first)
        with pair.target() as second:
            pair.transfer()
            second.connect().console.wait(b"tick")
            second.argv = second.argv[:-4]
            second.update()
            second.console.wait(b"tick", len(second.console.text))
            again = Pair(second)
            with again.target() as third:
                again.transfer()
                third.connect().console.wait(b"tick")
                with pytest.raises(QmpError, match="never runs here again"):
                    second.qmp.command("cont")


def test_guest_that_only_one_program_can_have_is_refused(ticker: Path, tmp_path: Path) -> None:
    words = ("-device", f"virtio-vsock-device,guest-cid=3,uds-path={tmp_path}/v")
    with Vm("-kernel", str(ticker), *words) as vm:
        pair = Pair(vm)
        reply = vm.qmp.raw("migrate", channels=pair.channels)
        assert "only mode cpr-exec keeps it" in reply["error"]["desc"]
        assert vm.qmp.command("query-migrate")["blocked-reasons"] == [reply["error"]["desc"]]


def test_target_of_another_machine_says_what_differs(pair: Pair) -> None:
    before = pair.vm.footprint()
    with pair.target("-smp", "2") as target:
        assert "the target refused: -smp: " in pair.fail()
        assert target.wait_exit() == 2
    assert unix(pair.main)["path"] not in [str(p) for p in pair.vm.folder.iterdir()]
    assert pair.vm.footprint() == before
