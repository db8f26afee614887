"""One VM after the other failed update: what each case of the fault matrix does, and the one assertion for all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import resource
import shutil
import signal
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from fault_inside import CONTROL

from harness import PATIENCE, PROGRAM
from loaded_guests import LoadedGuest

NAMES = ("a", "b")  # two builds of one version, so that the way back is rehearsed, too
TIMEOUT_MS = 20_000  # of a program that is not meant to be too late
_FLOCK = struct.Struct("hhqqi4x")
_TRIES = 5
_STORM_S = 0.002
_STOPPED_S = 0.02
_SHORTAGE_S = 1.0
# Outcomes: how an update ends. In each of them the guest goes on.
REFUSED = "refused"  # it was never stopped
UNDONE = "undone"  # it was stopped, and goes on in the program that was not replaced
WAY_BACK = "way back"  # the old program was executed again in the same process
GUARDIAN = "guardian"  # it runs under another process number
UPDATED = "updated"
STORMS = {
    f"storm-{name}": getattr(signal, name)
    for name in ("SIGCHLD", "SIGWINCH", "SIGURG", "SIGCONT", "SIGPIPE", "SIGSTOP")
}  # fmt: skip


class Case(NamedTuple):
    """One failure at one place.

    Attributes:
        place: Where (see :mod:`fault_inside`), or ``""``: the command, or something from outside.
        kind: What happens there.
        expected: The outcomes that are right.
        rehearsal: Whether the new program tries itself first.
        timeout_ms: ``x-update-timeout``.
        command: Executed instead of our program, with our arguments; ``{}`` is a file with ``text``.
        text: Of that file.
    """

    place: str
    kind: str
    expected: tuple[str, ...]
    rehearsal: bool = False
    timeout_ms: int = TIMEOUT_MS
    command: tuple[str, ...] = ()
    text: bytes = b""

    def __str__(self) -> str:
        rehearsed = ":rehearsed" if self.rehearsal and not self.place else ""
        return f"{self.place or 'update'}:{self.kind}{rehearsed}"


class Lane:
    """One VM; :meth:`run` lets an update of it fail.

    Args:
        start: Makes the guest, given a folder, the program to start and more arguments.
    """

    def __init__(self, start: Callable[[Path, Path, list[str]], LoadedGuest]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="instar-lane-"))
        self._programs = [_launcher(self._folder / "programs", name) for name in NAMES]
        self._at = 0  # which of them runs
        self._control = self._folder / "programs" / CONTROL
        self._pidfile = self._folder / "pid"
        try:
            self._guest = start(self._folder, self._programs[0], ["-pidfile", str(self._pidfile)])
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        self._vm = self._guest.vm
        self._mark = f"{self._vm.folder}/qmp"
        try:
            self._vm.prepare_update()
            assert self._update([]) == UPDATED, self._vm.qmp.command("query-migrate")
            self._check()
            self._footprint = self._look()
        except BaseException:
            self.close()
            raise

    # Doing

    def run(self, case: Case) -> str:
        """Let the update fail as the case says; returns the outcome, after the one assertion.

        On a host that is busy enough an update may fail by itself before it comes to the fault: then it is tried again.
        """
        told: list[str] = []
        while len(told) < _TRIES:
            before = self._vm.pid
            outcome = self._fail(case)
            self._check_nothing_is_left(before)
            error = self._vm.qmp.command("query-migrate").get("error-desc", "")
            told.append(f"{outcome}: {error}")
            if self._struck(case):
                assert outcome in case.expected, told
                return outcome
        raise AssertionError(f"it did not strike: {told}")

    def _fail(self, case: Case) -> str:
        before = self._vm.pid
        self._vm.qmp.command(
            "migrate-set-parameters",
            **{"x-update-rehearsal": case.rehearsal, "x-update-timeout": case.timeout_ms},
        )
        if case.place:
            self._control.write_text(f"{self._place(case.place)} {case.kind}")
        told: list[str] = []
        with self._meanwhile(case.kind):
            self._guest.around(lambda: told.append(self._update(self._command(case))))
        self._put_right()
        self._check()
        return told[0] if self._vm.pid == before else GUARDIAN

    def _struck(self, case: Case) -> bool:
        """Whether what was due has happened; a rehearsal may remove no file, and its refusal tells."""
        left = self._control.exists()
        self._control.unlink(missing_ok=True)
        return not left or case.place.startswith("child")

    def _place(self, place: str) -> str:
        new, old = NAMES[1 - self._at], NAMES[self._at]
        return place.replace("child-new", f"child-{new}").replace("child-old", f"child-{old}")

    def _command(self, case: Case) -> list[str]:
        if not case.command:
            return []
        other = self._folder / "other"
        if case.text:
            other.write_bytes(case.text)
            other.chmod(0o755)
        return [word.replace("{}", str(other)) for word in case.command]

    def _update(self, program: list[str]) -> str:
        """Update, from one program to the other; returns how that ended, as far as clients see it."""
        qmp, started = self._vm.qmp, self._started()
        uri = f"file:{self._vm.folder}/vm.state"
        words = program or [str(self._programs[1 - self._at])]
        command = [*words, *self._vm.argv[1:], "-incoming", uri]
        qmp.command("migrate-set-parameters", **{"cpr-exec-command": command})
        qmp.events.clear()
        reply = qmp.raw("migrate", uri=uri)
        if "error" in reply:
            return REFUSED
        stopped, status = False, ""
        while status not in ("completed", "failed"):
            event = qmp.next_event()
            stopped = stopped or event["event"] == "STOP"
            status = event["data"].get("status") if event["event"] == "MIGRATION" else ""
        if status == "completed":
            self._at = 1 - self._at
            return UPDATED
        assert qmp.command("query-migrate")["error-desc"]
        if not stopped:
            return REFUSED
        return UNDONE if self._started() == started else WAY_BACK

    def _started(self) -> bytes:
        """What the kernel told the program at its start; each has addresses of its own."""
        try:
            return Path(f"/proc/{self._vm.pid}/auxv").read_bytes()
        except OSError:  # it has ended: another process goes on
            return b""

    @contextlib.contextmanager
    def _meanwhile(self, kind: str) -> Iterator[None]:
        """Send the process this storm of signals; or end a shortage after a while."""
        done = threading.Event()

        def storm() -> None:
            while not done.wait(_STORM_S):
                os.kill(self._vm.pid, STORMS[kind])
                if STORMS[kind] == signal.SIGSTOP:
                    time.sleep(_STORM_S)
                    os.kill(self._vm.pid, signal.SIGCONT)
                    time.sleep(_STOPPED_S)

        def relieve() -> None:
            while not done.wait(_SHORTAGE_S):
                with contextlib.suppress(ProcessLookupError):
                    self._lift_limits()

        thread = threading.Thread(target=storm if kind in STORMS else relieve)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _lift_limits(self) -> None:
        """Let the process have what a fault took from it."""
        for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS):
            hard = resource.prlimit(self._vm.pid, limit)[1]
            resource.prlimit(self._vm.pid, limit, (hard, hard))

    def _put_right(self) -> None:
        """Take back what a fault did to the host."""
        for program in self._programs:
            program.chmod(0o755)
        (self._folder / "other").unlink(missing_ok=True)

    # The one assertion

    def _check(self) -> None:
        """The guest goes on, under exactly one owner, who is the one before or the guardian, and tells so."""
        vm, before = self._vm, self._vm.pid
        _until(lambda: len(_processes_naming(self._mark)) == 1)
        (vm.pid,) = _processes_naming(self._mark)
        self._lift_limits()
        assert vm.qmp.command("query-status") == {"status": "running", "running": True}
        if vm.pid != before:
            told = vm.qmp.command("query-migrate")
            assert told["error-desc"]
            assert told["x-update"]["owner"] == "old-by-guardian"
            assert f"the old program is started again as process {vm.pid}" in vm.said()
        assert int(self._pidfile.read_text()) == vm.pid
        assert not self._lease_is_free()
        self._guest.check()

    def _check_nothing_is_left(self, before: int) -> None:
        """Descriptors, threads, children, environment, files, guardians, processes that were not waited for."""
        deadline = time.monotonic() + PATIENCE
        while (found := self._look()) != self._footprint:
            if time.monotonic() > deadline:
                wrong = {
                    key: (self._footprint[key], found[key])
                    for key in found
                    if found[key] != self._footprint[key]
                }
                raise AssertionError(f"before and after: {wrong}")
            time.sleep(0.02)
        if before != self._vm.pid and before != self._vm.process.pid:
            os.waitpid(before, 0)  # guardians' programs are ours, as they would be an init's
        self._vm.process.poll()

    def _look(self) -> dict[str, object]:
        """What must not grow."""
        found = self._vm.footprint()
        programs = {str(program): "program" for program in self._programs}
        found["fds"] = sorted(programs.get(name, name) for name in found["fds"])
        found["environ"] = [name for name in found["environ"] if name != b"INSTAR_CPR_FAILED"]
        found["threads"] = max(0, int(found["threads"]) - self._guest.spare_threads)
        found["files"] = sorted(
            path.name
            for folder in (self._vm.folder, self._folder, self._folder / "programs")
            for path in folder.iterdir()
            if path.name not in ("vm.state", "__pycache__", CONTROL)
        )
        found["guardians"] = [pid for pid in _processes_naming("guardian.py") if self._guards(pid)]
        return found

    def _guards(self, pid: int) -> bool:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return words[-2:-1] == [str(self._vm.pid).encode()]

    def _lease_is_free(self) -> bool:
        """Whether somebody else could take the guest."""
        for link in Path(f"/proc/{self._vm.pid}/fd").iterdir():
            if "instar-lease" in os.readlink(link):
                with open(link, "r+b") as file:
                    lock = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
                    got = fcntl.fcntl(file, fcntl.F_OFD_GETLK, lock)
                return _FLOCK.unpack(got)[0] == fcntl.F_UNLCK
        return True

    def said(self) -> str:
        """The end of what the programs said."""
        return self._vm.said()[-3000:]

    def close(self) -> None:
        """End the VM."""
        for pid in _processes_naming(self._mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._guest.close()
        shutil.rmtree(self._folder)


def _launcher(folder: Path, name: str) -> Path:
    """Write the program ``name``: the real one, fit to fail."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    lines = PROGRAM.read_text().splitlines(keepends=True)
    start = next(n for n, line in enumerate(lines) if line.startswith("from instar"))
    own = (
        f"sys.path.insert(1, {str(Path(__file__).parent)!r})\n"
        "import fault_inside\n"
        f"fault_inside.set_up({str(path)!r}, {name!r})\n"
    )
    path.write_text("".join([*lines[:start], own, *lines[start:]]))
    path.chmod(0o755)
    return path


def _processes_naming(text: str) -> set[int]:
    """The processes, zombies excepted, that have ``text`` in their command line."""
    found = set()
    for name in os.listdir("/proc"):
        if re.fullmatch("[0-9]+", name):
            with contextlib.suppress(OSError):
                if text.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    found.add(int(name))
    return found


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
