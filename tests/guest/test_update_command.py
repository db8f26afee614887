"""``update``: the command line comes from what runs now, it can be tried, and it tells how it went."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from harness import PROGRAM, Console, Qmp, QmpError, Vm
from instar.cli import update as the_tool
from instar.errors import HostError

TOOL = PROGRAM.with_name("instar")
STREAM = "type=stream,id={},addr.type=unix,addr.path={}/net,reconnect-ms=100"
NO_MODE = {"mode": "normal", "cpr-exec-command": []}


def start(ticker: Path, *extra: str) -> Vm:
    vm = Vm("-kernel", str(ticker), *extra)
    vm.console.wait(b"tick 1")
    capability = {"capability": "events", "state": True}
    vm.qmp.command("migrate-set-capabilities", capabilities=[capability])
    return vm


@pytest.fixture
def vm(ticker: Path):
    with start(ticker) as machine:
        yield machine


def hmp(vm: Vm, line: str) -> str:
    return vm.qmp.command("human-monitor-command", **{"command-line": line})


def ended(vm: Vm, **arguments) -> dict:
    """Try an update; returns what the event at its end tells."""
    vm.qmp.command("x-update", **arguments)
    while True:
        event = vm.qmp.next_event()
        if event["event"] in ("UPDATE_COMPLETED", "UPDATE_FAILED", "UPDATE_CHECKED"):
            assert vm.qmp.command("query-migrate")["x-update"] == event["data"]
            return event["data"]


def update(vm: Vm, **arguments) -> dict:
    report = ended(vm, **arguments)
    assert report["status"] == "completed", report.get("reason")
    return report


def command_line(vm: Vm) -> list[str]:
    """The options of the process: what comes before them is the kernel's way to start the program."""
    words = Path(f"/proc/{vm.process.pid}/cmdline").read_text().split("\0")[:-1]
    return words[words.index("-m") :]


def option(words: list[str], name: str) -> list[str]:
    return [value for word, value in pairwise(words) if word == name]


def ids(words: list[str], name: str) -> list[str]:
    """The kind and the id of each thing of that option."""
    return [",".join(value.split(",")[:2]) for value in option(words, name)]


def program(folder: Path, patch: str) -> Path:
    """Write a version of the program that is patched."""
    lines = PROGRAM.read_text().splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if line.startswith("from instar"))
    path = folder / "instar-patched"
    path.write_text("".join([*lines[:at], patch, *lines[at:]]))
    path.chmod(0o755)
    return path


def test_five_updates_say_what_was_changed_at_run_time(ticker: Path, tmp_path: Path) -> None:
    extra = (
        "-netdev", STREAM.format("n0", tmp_path), "-device", "virtio-net-device,netdev=n0,id=net0",
        "-chardev", "ringbuf,id=ring0,size=4096",
    )  # fmt: skip
    with start(ticker, *extra) as vm:
        before = vm.qmp.command("query-migrate-parameters")
        assert before | NO_MODE == before
        update(vm)
        assert ids(command_line(vm), "-chardev") == [
            "socket,id=con", "ringbuf,id=ring0", "socket,id=compat_monitor0",
        ]  # fmt: skip
        assert option(command_line(vm), "-incoming") == ["memfd:"]
        hmp(vm, "chardev-add ringbuf,id=extra,size=4096")
        hmp(vm, "chardev-remove ring0")
        hmp(vm, "ringbuf_write extra abc")
        update(vm)
        assert ids(command_line(vm), "-chardev")[1:] == [
            "socket,id=compat_monitor0",
            "ringbuf,id=extra",
        ]
        hmp(vm, "netdev_del n0")
        hmp(vm, f"netdev_add {STREAM.format('n1', tmp_path)}")
        hmp(vm, "set_link net0 off")
        update(vm)
        assert sorted(ids(command_line(vm), "-netdev")) == ["none,id=n0", "stream,id=n1"]
        hmp(vm, "netdev_del n1")
        hmp(vm, f"netdev_add {STREAM.format('n0', tmp_path)}")
        update(vm)
        words = command_line(vm)
        assert ids(words, "-netdev") == ["stream,id=n0"]
        update(vm)
        assert command_line(vm) == words
        assert hmp(vm, "info network").count("\n") == 2
        assert "link=down" in hmp(vm, "info network")
        assert vm.qmp.command("ringbuf-read", device="extra", size=9) == "abc"
        assert vm.qmp.command("query-migrate-parameters") == before
        vm.console.wait(b"tick", len(vm.console.text))


def test_disks_have_the_limits_that_were_set_and_the_size_of_their_file(
    ticker: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
    extra = (
        "-drive", f"if=none,id=disk0,file={tmp_path}/a,format=raw", "-device", "virtio-blk-device,drive=disk0",
        "-blockdev", f"driver=raw,node-name=disk1,file.driver=file,file.filename={tmp_path}/b",
        "-device", "virtio-blk-device,drive=disk1",
    )  # fmt: skip
    with start(ticker, *extra) as vm:
        hmp(vm, "block_set_io_throttle disk0 0 0 1048576 100 0 0")
        hmp(vm, "block_set_io_throttle disk1 4096 0 0 0 0 0")
        vm.qmp.command("block_resize", device="disk0", size=2 << 20)
        update(vm)
        words = command_line(vm)
        assert [d.partition("throttling.")[2] for d in option(words, "-drive")] == [
            "bps-write=1048576,throttling.iops-total=100",
            "bps-total=4096",
        ]
        update(vm)
        assert command_line(vm) == words
        hmp(vm, "block_set_io_throttle disk1 0 0 0 0 0 0")
        update(vm)
        assert "throttling" not in option(command_line(vm), "-drive")[1]
        blocks = vm.qmp.command("query-block")
        assert [b["inserted"]["image"]["virtual-size"] for b in blocks] == [2 << 20, 1 << 20]
        assert [b["inserted"]["iops"] for b in blocks] == [100, 0]


def test_sets_of_descriptors_are_named_with_the_numbers_that_they_have(
    ticker: Path, tmp_path: Path
) -> None:
    fd = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    vm = Vm("-kernel", str(ticker), "-add-fd", f"fd={fd},set=4,opaque=a,,b", pass_fds=[fd])
    os.close(fd)
    with vm:
        vm.console.wait(b"tick 1")
        vm.qmp.command(
            "migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}]
        )
        (before,) = vm.qmp.command("query-fdsets")
        update(vm)
        assert vm.qmp.command("query-fdsets") == [before]
        number = before["fds"][0]["fd"]
        assert option(command_line(vm), "-add-fd") == [f"fd={number},set=4,opaque=a,,b"]


def test_report_of_an_update_tells_all_of_it(vm: Vm) -> None:
    report = update(vm, budget=60_000)
    assert report["owner"] == "new"
    assert report["old-pid"] == report["new-pid"] == vm.process.pid
    assert report["program"] == str(PROGRAM)
    assert report["pause-us"] > 0
    assert report["predicted-pause-us"] > 0
    assert report["rehearsal-pause-us"] > 0
    assert [phase["name"] for phase in report["phases"]] == [
        "prepare", "rehearse", "stop", "save", "exec", "build", "load", "resume", "settle",
    ]  # fmt: skip
    text = hmp(vm, "info migrate")
    assert "completed, pause " in text
    assert f"with the new program, process {vm.process.pid}" in text


def test_phases_are_told_in_order_also_those_after_exec(vm: Vm) -> None:
    vm.qmp.command("x-update")
    seen: list[tuple[str, str]] = []
    while (event := vm.qmp.next_event())["event"] != "UPDATE_COMPLETED":
        if event["event"] == "UPDATE_PHASE":
            seen.append((event["data"]["phase"], event["data"]["status"]))
    phases = ["prepare", "rehearse", "stop", "save", "exec", "build", "load", "resume", "settle"]
    assert seen == [(phase, status) for phase in phases for status in ("begun", "done")]


def test_check_stops_nothing_changes_no_status_and_leaves_nothing(vm: Vm) -> None:
    update(vm)
    before = vm.qmp.command("query-migrate")
    footprint, words = vm.footprint(), command_line(vm)
    vm.qmp.events.clear()
    report = ended(vm, check=True)
    assert (report["status"], report["owner"], report["check"]) == ("ready", "old", True)
    assert report["predicted-pause-us"] > 0
    after = vm.qmp.command("query-migrate")
    assert after.pop("x-update") == report
    assert after == {key: value for key, value in before.items() if key != "x-update"}
    assert (vm.footprint(), command_line(vm)) == (footprint, words)
    assert not [e for e in vm.qmp.events if e["event"] in ("STOP", "MIGRATION")]
    assert update(vm)["status"] == "completed"


def test_check_that_finds_something_says_what(vm: Vm) -> None:
    footprint = vm.footprint()
    report = ended(vm, check=True, program="/bin/true")
    assert report["status"] == "refused"
    assert "it is not a version of this program" in report["reason"]
    assert vm.qmp.command("query-migrate").get("status") is None
    assert ended(vm, check=True, budget=1)["reason"].endswith("the guest was not stopped")
    assert vm.footprint() == footprint
    assert "refused" in hmp(vm, "info migrate")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("/nonexistent/x", "execvp /nonexistent/x failed: No such file or directory"),
        ("a\0b", "cpr-exec-command: a word of 3 characters: not UTF-8, has NUL, or over 131071 bytes"),
    ],
)  # fmt: skip
def test_program_that_cannot_be_is_refused_at_once(vm: Vm, name: str, text: str) -> None:
    with pytest.raises(QmpError) as e:
        vm.qmp.command("x-update", program=name)
    assert str(e.value) == text
    assert vm.qmp.command("query-status")["running"] is True


def test_update_while_another_one_or_a_check_is_under_way_is_refused(vm: Vm) -> None:
    capability = {"capability": "pause-before-switchover", "state": True}
    vm.qmp.command("migrate-set-capabilities", capabilities=[capability])
    vm.qmp.command("x-update")
    vm.qmp.wait_event("MIGRATION", status="pre-switchover")
    with pytest.raises(QmpError, match="There's a migration process in progress"):
        vm.qmp.command("x-update")
    vm.qmp.command("migrate_cancel")
    assert vm.qmp.command("query-migrate")["x-update"]["status"] == "cancelled"
    vm.qmp.command("x-update", check=True)
    for name, arguments in (("x-update", {}), ("migrate", {"uri": "memfd:"})):
        with pytest.raises(QmpError, match="There's a migration process in progress"):
            vm.qmp.command(name, **arguments)
    vm.qmp.command("migrate_cancel")
    vm.qmp.wait_event("UPDATE_CHECKED", status="cancelled")
    assert ended(vm, check=True)["status"] == "ready"


def test_hmp_update_waits_and_tells(ticker: Path, tmp_path: Path) -> None:
    where = tmp_path / "hmp"
    with start(ticker, "-monitor", f"unix:{where},server=on,wait=off"):
        monitor = Console(where)
        for line, text in (
            (b"update --check", b"ready, predicted"),
            (b"update -c", b"ready, predicted"),
            (b"update /bin/true", b"Error: rehearsal of /bin/true: "),
            (b"update", b"completed, pause "),
        ):
            seen = len(monitor.text)
            monitor.send(line + b"\r")
            at = monitor.wait(text, seen)
            monitor.wait(b"(instar) ", at)
        monitor.socket.close()


def test_update_that_raises_after_exec_tells_that_the_old_program_goes_on(
    vm: Vm, tmp_path: Path
) -> None:
    patch = (
        "import instar.migration.incoming as i\n"
        "def bad(*a): raise RuntimeError('boom')\ni.Incoming._go = bad\n"
    )
    report = ended(vm, program=str(program(tmp_path, patch)))
    assert (report["status"], report["owner"]) == ("failed", "old")
    assert "boom" in report["reason"]
    assert report["old-pid"] == report["new-pid"] == vm.process.pid
    assert "exec" in [phase["name"] for phase in report["phases"]]
    assert "failed" in hmp(vm, "info migrate")
    assert update(vm)["owner"] == "new"


def test_update_that_is_lost_tells_that_the_guardian_started_the_old_program(
    vm: Vm, tmp_path: Path
) -> None:
    patch = (
        "import instar.migration.incoming as i, os\n"
        "def bad(*a): os.kill(os.getpid(), 9)\ni.Incoming._go = bad\n"
    )
    report = ended(vm, program=str(program(tmp_path, patch)))
    assert (report["status"], report["owner"]) == ("failed", "old-by-guardian")
    assert report["old-pid"] == vm.process.pid
    assert report["new-pid"] != vm.process.pid
    assert update(vm)["old-pid"] == report["new-pid"]
    vm.qmp.command("quit")


def test_tool_gives_up_on_a_socket_that_serves_somebody_else(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(the_tool, "_SILENCE_S", 0.05)
    monkeypatch.setattr(the_tool, "_FIRST_S", 0.2)
    path = str(tmp_path / "qmp")
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(path)
        busy.listen(4)
        with pytest.raises(HostError, match=r"no QMP greeting within 0\.2 s; nothing was asked"):
            the_tool.Client(path)
    assert capsys.readouterr().err.count("another one may be connected; waiting") == 1


def tool(vm: Vm, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``instar update`` on the VM; its QMP socket serves one client, so the test's own is closed before."""
    vm.qmp.socket.close()
    command = [TOOL, "update", vm.folder / "qmp", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_tool_updates_and_tells_in_text_and_json(vm: Vm) -> None:
    done = tool(vm)
    assert (done.returncode, done.stderr) == (0, "")
    assert "completed" in done.stdout
    assert "the guest stood still for " in done.stdout
    assert f"the new program has the guest, process {vm.process.pid}" in done.stdout
    assert "\x1b" not in done.stdout
    done = tool(vm, str(PROGRAM), "--check", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row.get("phase") for row in rows] == ["prepare", "rehearse", None]
    assert (rows[-1]["event"], rows[-1]["status"]) == ("done", "ready")
    done = tool(vm, "/bin/true")
    assert done.returncode == 6
    assert "refused" in done.stderr
    assert tool(vm, "/nonexistent/x").returncode == 6


def test_tool_tells_that_the_guardian_started_the_old_program(vm: Vm, tmp_path: Path) -> None:
    patch = (
        "import instar.migration.incoming as i, os\n"
        "def bad(*a): os.kill(os.getpid(), 9)\ni.Incoming._go = bad\n"
    )
    done = tool(vm, str(program(tmp_path, patch)))
    assert done.returncode == 7
    assert "the guardian has started the old program again" in done.stdout
    assert "failed: the new program ended before it went on" in done.stderr
    client = Qmp(vm.folder / "qmp")
    client.command("quit")
    client.socket.close()


def test_tool_without_a_vm_says_so(tmp_path: Path) -> None:
    command = [TOOL, "update", tmp_path / "qmp"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "No such file or directory" in done.stderr
