"""The task that keeps an old program's address space until the pause is over: what it has, and when it is gone."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from counter_world import Service
from harness import KEEPER, PATIENCE, Vm, name_of
from instar.cpr.keeper import Keeper, left

pytest.importorskip("instar.cpr._keeper", reason="the compiled part of the keeper was not built")
MAIN = "from instar.cli.start import main\nsys.exit(main())\n"
TOUCHED = 2 << 30  # bytes


def descriptors(pid: int) -> list[str]:
    folder = f"/proc/{pid}/fd"
    return [os.readlink(f"{folder}/{number}") for number in os.listdir(folder)]


def field(pid: int, name: str) -> str:
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(row.partition(":")[2].strip() for row in rows if row.startswith(f"{name}:"))


def hung_up(peer: socket.socket) -> bool:
    """Wait until the other end of a connection is closed."""
    poll = select.poll()
    poll.register(peer, 0)
    return bool(poll.poll(PATIENCE * 1000))


def keepers(pid: int) -> list[int]:
    """The keepers among a process's children."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if name_of(int(child)) == KEEPER]


@pytest.fixture
def keeper():
    made = Keeper.start()
    yield made
    made.end()
    assert not Path(f"/proc/{made.pid}").exists()


def test_keeper_has_one_descriptor_the_end_of_its_pipe(keeper: Keeper) -> None:
    (name,) = descriptors(keeper.pid)
    assert name.startswith("pipe:")
    assert os.fstat(keeper.hold).st_ino == int(name[6:-1])


def test_keeper_is_the_last_to_get_the_processor_and_its_program_is_not(keeper: Keeper) -> None:
    assert os.getpriority(os.PRIO_PROCESS, keeper.pid) == 19
    assert os.getpriority(os.PRIO_PROCESS, 0) < 19


def test_keeper_that_starts_without_standard_streams_has_its_pipe_alone() -> None:
    script = (
        "import os\nfrom instar.cpr.keeper import Keeper\nsaid = os.dup(1)\nos.closerange(0, 3)\n"
        "k = Keeper.start()\nos.write(said, str(len(os.listdir(f'/proc/{k.pid}/fd'))).encode())\nk.end()\n"
    )
    assert subprocess.check_output([sys.executable, "-c", script]) == b"1"


def test_peer_of_a_socket_that_is_closed_meanwhile_sees_the_end_at_once() -> None:
    ours, theirs = socket.socketpair()
    made = Keeper.start()
    ours.close()
    assert hung_up(theirs)
    assert name_of(made.pid) == KEEPER
    theirs.close()
    made.end()


def test_keeper_takes_no_signals_and_is_a_process_of_its_own(keeper: Keeper) -> None:
    unblockable = 1 << (signal.SIGKILL - 1) | 1 << (signal.SIGSTOP - 1)
    assert int(field(keeper.pid, "SigBlk"), 16) == (1 << 64) - 1 - unblockable
    assert field(keeper.pid, "Tgid") == str(keeper.pid)
    os.kill(keeper.pid, signal.SIGTERM)
    assert name_of(keeper.pid) == KEEPER


def test_wait_for_any_child_does_not_come_by_it(keeper: Keeper) -> None:
    assert left([keeper.pid]) == [keeper.pid]
    with pytest.raises(ChildProcessError):
        os.waitpid(keeper.pid, os.WNOHANG)


def test_keeper_ends_when_the_last_writer_of_its_pipe_does() -> None:
    made = Keeper.start()
    os.dup2(os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC), made.hold, inheritable=False)
    process = os.pidfd_open(made.pid)
    assert select.select([process], [], [], 60)[0] == [process]
    os.close(process)
    made.end()  # as if nothing had happened


def test_keeper_that_is_killed_early_is_only_gone(keeper: Keeper) -> None:
    os.kill(keeper.pid, signal.SIGKILL)


def test_keeper_that_comes_and_goes_leaves_memory_and_threads_as_they_are() -> None:
    on, counts = True, [0, 0]

    def work(number: int) -> None:
        while on:
            counts[number] = len(bytearray(1 << 16))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    maps = len(Path("/proc/self/maps").read_text().splitlines())
    for _ in range(20):
        Keeper.start().end()
    on = False
    for thread in threads:
        thread.join()
    assert counts == [1 << 16, 1 << 16]
    assert len(Path("/proc/self/maps").read_text().splitlines()) < maps + 20


def waiting_vm(vm: Vm) -> int:
    """Bring an update to where it waits for a word, and return its keeper."""
    uri = vm.prepare_update(uri="memfd:")
    pause = {"capability": "pause-before-switchover", "state": True}
    vm.qmp.command("migrate-set-capabilities", capabilities=[pause])
    vm.qmp.command("migrate", uri=uri)
    vm.qmp.wait_event("MIGRATION", status="pre-switchover")
    (pid,) = keepers(program_of(vm))
    return pid


def program_of(vm: Vm) -> int:
    """The process of the program, which a wrapper may have started as its only child."""
    return (vm.children() if vm.process.args[0] == "unshare" else [vm.process.pid])[0]


@pytest.fixture
def vm(ticker: Path):
    with Vm("-kernel", str(ticker)) as machine:
        machine.qmp.command(
            "chardev-add",
            id="other",
            backend={
                "type": "socket",
                "data": {
                    "addr": {"type": "unix", "data": {"path": f"{machine.folder}/other"}},
                    "server": True,
                    "wait": False,
                },
            },
        )
        machine.console.wait(b"tick 1")
        yield machine


def test_update_that_waits_has_a_keeper_with_its_pipe_alone_and_connections_end_at_once(
    vm: Vm,
) -> None:
    other = socket.socket(socket.AF_UNIX)
    other.connect(f"{vm.folder}/other")
    pid = waiting_vm(vm)
    assert [name.partition(":")[0] for name in descriptors(pid)] == ["pipe"]
    vm.qmp.command("chardev-remove", id="other")
    assert hung_up(other)
    assert keepers(vm.process.pid) == [pid]
    vm.qmp.command("migrate-continue", state="pre-switchover")
    vm.qmp.wait_event("MIGRATION", status="completed")
    assert vm.children() == []
    other.close()


def test_update_that_is_cancelled_leaves_no_keeper(vm: Vm) -> None:
    footprint = vm.footprint()
    waiting_vm(vm)
    vm.qmp.command("migrate_cancel")
    vm.qmp.wait_event("MIGRATION", status="cancelled")
    assert vm.footprint() == footprint


def test_update_whose_keeper_was_killed_completes(vm: Vm) -> None:
    os.kill(waiting_vm(vm), signal.SIGKILL)
    vm.qmp.command("migrate-continue", state="pre-switchover")
    vm.qmp.wait_event("MIGRATION", status="completed")
    assert vm.children() == []


def test_update_whose_keeper_was_stopped_does_not_wait_for_it(vm: Vm) -> None:
    pid = waiting_vm(vm)
    os.kill(pid, signal.SIGSTOP)
    vm.qmp.command("migrate-continue", state="pre-switchover")
    vm.qmp.wait_event("MIGRATION", status="completed")
    vm.console.wait(b"tick", len(vm.console.text))
    os.kill(pid, signal.SIGCONT)
    assert vm.children() == []


PID_1 = (
    "unshare", *(("--map-root-user",) if os.geteuid() else ()), "--pid", "--fork", "--mount-proc"
)  # fmt: skip


@pytest.mark.parametrize(
    ("options", "wrapper"),
    [(("-sandbox", "on"), ()), ((), PID_1)],
    ids=["confined", "process-1"],
)
def test_keeper_is_there_and_its_end_collected_also_where_little_is_allowed(
    ticker: Path, options: tuple[str, ...], wrapper: tuple[str, ...]
) -> None:
    with Vm("-kernel", str(ticker), *options, wrapper=wrapper) as vm:
        vm.console.wait(b"tick 1")
        waiting_vm(vm)
        vm.qmp.command("migrate-continue", state="pre-switchover")
        vm.qmp.wait_event("MIGRATION", status="completed")
        deadline = time.monotonic() + PATIENCE
        while keepers(program_of(vm)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert keepers(program_of(vm)) == []


def test_twenty_updates_leave_no_child(vm: Vm) -> None:
    nets = ("x-update-rehearsal", "x-update-guardian")
    vm.qmp.command("migrate-set-parameters", **dict.fromkeys(nets, False))
    vm.update()
    footprint = vm.footprint()
    for _ in range(20):
        vm.update()
    assert vm.footprint() == footprint


def test_update_without_a_keeper_works_and_says_so_if_nobody_asked_for_that(
    vm: Vm, tmp_path: Path
) -> None:
    lines = Path(vm.argv[0]).read_text().splitlines(keepends=True)
    start = next(n for n, line in enumerate(lines) if line.startswith("from instar"))
    program = tmp_path / "instar-uncompiled"
    lack = "import sys\nsys.modules['instar.cpr._keeper'] = None\n"
    program.write_text("".join(lines[:start]) + lack + MAIN)
    program.chmod(0o755)
    vm.update(program=program)
    told = vm.update()["x-update"]["notes"]
    assert [note for note in told if "the memory is given back in the pause" in note] == told
    assert len(told) == 1
    vm.qmp.command("migrate-set-parameters", **{"x-update-keeper": False})
    assert "notes" not in vm.update()["x-update"]


def test_service_that_updates_itself_keeps_no_child(tmp_path: Path) -> None:
    service = Service(tmp_path)
    client = service.connect()
    service.become("2")
    client.send("!")
    assert "update 1 -> 2" in service.console()
    deadline = time.monotonic() + PATIENCE
    while service.children() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert service.children() == []
    client.socket.close()
    service.end()


EXECUTES = """
import json, os, sys, time
from mmap import mmap
now = time.monotonic_ns()
if len(sys.argv) > 2:
    print(json.dumps(now - int(sys.argv[2])))
    sys.exit()
from instar.cpr.keeper import Keeper
size = int(os.environ["TOUCHED"])
memory = os.memfd_create("guest")
os.ftruncate(memory, size)
guest = mmap(memory, size)
guest.madvise(23)  # MADV_POPULATE_WRITE
if sys.argv[1] == "with":
    os.set_inheritable(Keeper.start().hold, True)
argv = [sys.executable, "-S", "-c", os.environ["SELF"], sys.argv[1]]
os.execv(sys.executable, [*argv, str(time.monotonic_ns())])
"""


def exec_ns(how: str) -> int:
    environ = {**os.environ, "TOUCHED": str(TOUCHED), "SELF": EXECUTES}
    command = [sys.executable, "-c", EXECUTES, how]
    return int(json.loads(subprocess.check_output(command, env=environ)))


def free_bytes() -> int:
    rows = Path("/proc/meminfo").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("MemAvailable")) << 10


@pytest.mark.skipif(free_bytes() < 2 * TOUCHED, reason="less than 4 GiB of memory are free")
def test_exec_of_a_program_that_touched_much_is_quicker_with_a_keeper() -> None:
    pairs = [(exec_ns("without"), exec_ns("with")) for _ in range(3)]
    assert statistics.median(with_it / without for without, with_it in pairs) < 1
