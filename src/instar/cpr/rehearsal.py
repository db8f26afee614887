"""A rehearsal: start the next program beside this one, hear how it would go, judge it; and the child's one answer.

The child gets everything that an update would hand over, but under another name (``INSTAR_CPR_REHEARSAL``), so that a
program that knows nothing of rehearsals cannot take over. Nothing here needs a main loop: whoever has one watches
:attr:`Child.pipe` and calls :meth:`Child.take`; whoever has none calls :meth:`Child.wait`.

Not on the resume path. Source: own; docs/decisions/0008.
"""

from __future__ import annotations

import contextlib
import os
import select
from time import monotonic_ns

from instar.cpr.adopted import REHEARSAL
from instar.cpr.carriers import ExecCarrier
from instar.cpr.encoding import decode, encode
from instar.cpr.errors import CprError, UpdateRefusedError
from instar.cpr.versions import readable_versions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Final, NoReturn

    from instar.cpr.adopted import Adopted
    from instar.cpr.fds import Fds
    from instar.cpr.state import Record
    from instar.cpr.target import Target

REPORT: Final = ("rehearsal/report", 0)  # the name of the pipe that the child answers through
BEGUN: Final = "INSTAR_CPR_BEGUN"  # variable: when the program was executed, monotonic ns
_MAX_REPORT: Final = 1 << 22  # bytes
_SIGKILL: Final = 9
_MAX_RELEASE: Final = 4200  # characters: a path and a time
_LAST_LINES: Final = 3
_SHOWN: Final = 8  # of what would be lost
_STREAMS: Final = (1, 2)
_NS: Final = 1_000_000_000


class Answer:
    """What the child told.

    Attributes:
        program: Its version.
        release: What tells two builds of one version apart.
        complaints: Why it could not take over; sentences.
        notes: What people should know; sentences.
        lost: Fields of states that would not come through, as ``"plic.pending[3]"``.
        reads: State name -> (oldest, newest) version that it reads.
        bridges: It can serve as a bridge.
        collects: It collects the end of the task that keeps the old address space.
        prepared: What its start proper can use (:mod:`instar.prepared`), of no meaning here.
        begun_ns, build_ns, load_ns: From exec to its first own step, making the machine, loading it.
    """

    __slots__ = (
        "begun_ns", "bridges", "build_ns", "collects", "complaints", "load_ns", "lost", "notes", "prepared", "program",
        "reads", "release",
    )  # fmt: skip

    def __init__(self) -> None:
        self.program = ""
        self.release = ""
        self.complaints: list[str] = []
        self.notes: list[str] = []
        self.lost: list[str] = []
        self.bridges = False
        self.prepared = b""
        self.reads: dict[str, tuple[int, int]] = {}
        self.collects = False
        self.begun_ns = self.build_ns = self.load_ns = 0

    @property
    def pause_ns(self) -> int:
        """How long a guest would wait for it: from exec to the machine's state loaded."""
        return self.begun_ns + self.build_ns + self.load_ns

    @property
    def verdict(self) -> list[str]:
        """Why the update is refused: complaints, and what would be lost."""
        rest = len(self.lost) - _SHOWN
        shown = [*self.lost[:_SHOWN], *([f"{rest} more"] if rest > 0 else [])]
        lost = [f"it would lose {', '.join(shown)}"] if shown else []
        return [*self.complaints, *lost]

    def to_record(self) -> Record:
        """Return plain values for reports."""
        return {
            "program": self.program,
            "release": self.release,
            "complaints": list(self.complaints),
            "notes": list(self.notes),
            "lost": list(self.lost),
            "reads": {name: list(versions) for name, versions in self.reads.items()},
            "begun-us": self.begun_ns // 1000,
            "build-us": self.build_ns // 1000,
            "load-us": self.load_ns // 1000,
        }


class Child:
    """A program that tries itself; made by :meth:`start`, ended by :meth:`stop` in any case.

    Attributes:
        pipe: Readable when there is something to :meth:`take`; -1 when it is over.
    """

    def __init__(self) -> None:
        self.pipe = -1
        self._pid = 0
        self._said = -1  # a memfd: what the child wrote to its standard streams
        self._data = b""

    @classmethod
    def start(
        cls,
        target: Target,
        argv: list[str],
        table: tuple[Fds, Record],
        read_only: Collection[str] = (),
    ) -> Child:
        """Start the child.

        Args:
            target: What to execute.
            argv: Its arguments.
            table: Descriptors (a table of its own, that the pipe is added to) and news, as an update would hand over.
            read_only: Kinds of descriptors that the child gets opened anew, for reading only.

        Raises:
            CprError, OSError: It cannot be started; nothing is left behind.
        """
        made = cls()
        try:
            made._start(target, argv, table, read_only)
        except BaseException:
            made.stop()
            raise
        return made

    def _start(
        self,
        target: Target,
        argv: list[str],
        table: tuple[Fds, Record],
        read_only: Collection[str],
    ) -> None:
        fds, info = table
        self.pipe, theirs = os.pipe2(os.O_CLOEXEC)
        carrier = ExecCarrier(target, argv)
        copies: list[int] = []
        try:
            fds.save(*REPORT, theirs, kind="pipe", owner="cpr")
            self._said = os.memfd_create("instar-rehearsal", os.MFD_CLOEXEC)
            carrier.save(fds, {**info, "started-ns": monotonic_ns()})
            crossing = carrier.descriptors
            actions = [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in crossing]
            for entry in fds.walk():
                if entry.kind in read_only:
                    path = f"/proc/self/fd/{entry.fd}"
                    copies.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                    actions.append((os.POSIX_SPAWN_DUP2, copies[-1], entry.fd))
            silent = [number for number in _STREAMS if number not in crossing]
            actions += [(os.POSIX_SPAWN_DUP2, self._said, number) for number in silent]
            self._pid = os.posix_spawn(
                f"/dev/fd/{target.fd}",
                argv,
                {**os.environ, REHEARSAL: str(crossing[-1])},
                file_actions=actions,
                setpgroup=0,
            )
        finally:
            carrier.drop()
            for fd in (theirs, *copies):
                os.close(fd)

    def take(self) -> bool:
        """Take what has arrived; true if that was all."""
        data = os.read(self.pipe, 1 << 16)
        self._data += data
        return not data or len(self._data) > _MAX_REPORT

    def wait(self, limit_ns: int) -> Answer:
        """Wait for the answer, end the child, and return what it told; after so long it is told that it was late."""
        poll = select.poll()
        poll.register(self.pipe, select.POLLIN)
        deadline_ns = monotonic_ns() + limit_ns
        while poll.poll(max(0, deadline_ns - monotonic_ns()) // 1_000_000 + 1):
            if self.take():
                return self.finish()
            if monotonic_ns() > deadline_ns:
                break
        return self.finish(late_ns=limit_ns)

    def finish(self, late_ns: int = 0) -> Answer:
        """End the child and return its answer; ``late_ns``: it had so long, and none came."""
        answer = Answer()
        if late_ns:
            answer.complaints = [f"it did not answer within {late_ns / _NS:g} s"]
        elif not self._data:
            answer.complaints = [last_words(os.pread(self._said, 1 << 16, 0))]
        else:
            try:
                answer = answer_of(self._data)
            except CprError as exc:
                answer.complaints = [f"its answer makes no sense: {exc}"]
        self.stop()
        return answer

    def stop(self) -> None:
        """End the child and all that it started, if there still is one; again is fine."""
        for fd in (self.pipe, self._said):
            if fd >= 0:
                os.close(fd)
        self.pipe = self._said = -1
        pid, self._pid = self._pid, 0
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, _SIGKILL)
            with contextlib.suppress(ChildProcessError):  # this program ignores SIGCHLD
                os.waitpid(pid, 0)


def last_words(said: bytes) -> str:
    """Return why a child did not answer, by what it wrote to its standard streams."""
    text = said.decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return "it ended without an answer: it is not a version of this program"
    told = [line.partition(": error: ")[2] for line in lines if ": error: " in line]
    return "; ".join(told or lines[-_LAST_LINES:])[:1000]


def judge(answer: Answer, program: str, after: str) -> None:
    """Refuse the update if the child complained.

    Args:
        answer: What it told.
        program: Whose rehearsal it was, for people.
        after: What state things are in, as ``"the guest was not stopped"``.

    Raises:
        UpdateRefusedError: With all that it said.
    """
    verdict = answer.verdict
    if verdict:
        error = UpdateRefusedError(f"rehearsal of {program}: {verdict[0]}; {after}")
        for text in verdict[1:]:
            error.add_note(text)
        raise error


def tell(pipe: int, told: Record) -> None:
    """The child's side: write the one answer (keys: docs/decisions/0008)."""
    data = memoryview(encode(told))
    while data:
        data = data[os.write(pipe, data) :]


def begun_ns(adopted: Adopted) -> int:
    """The child's side: return how long it took from its execution to its first own step, what limited it left out."""
    started = adopted.info.get("started-ns")
    if not isinstance(started, int):
        return 0
    executed = os.environ.get(BEGUN, "")
    if executed.isascii() and executed.isdigit() and started <= int(executed):
        started = int(executed)
    return max(0, adopted.started_ns - started)


def tell_end(adopted: Adopted, version: str, complaints: list[str]) -> NoReturn:
    """The child's side, of a plain program: tell how it went, and end at once; there is nothing that it could clean up.

    Args:
        adopted: What it was given.
        version: Of this program.
        complaints: Why it could not take over.
    """
    told: Record = {
        "program": version,
        "complaints": list(complaints),
        "collects": True,
        "reads": {name: list(row) for name, row in readable_versions().items()},
        "load-ns": monotonic_ns() - adopted.started_ns,
    }
    told["begun-ns"] = begun_ns(adopted)
    tell(adopted.fds.find(*REPORT), told)
    os._exit(0)


def answer_of(data: bytes) -> Answer:
    """Return the answer (untrusted) that a child wrote; CprError if it is none."""
    record = decode(data, "rehearsal")
    answer = Answer()
    if not isinstance(record, dict):
        raise UpdateRefusedError("it is not a record")
    fields: Record = record  # pyright: ignore[reportUnknownVariableType]
    answer.program = str(fields.get("program", ""))[:100]
    answer.release = str(fields.get("release", ""))[:_MAX_RELEASE]
    answer.bridges = fields.get("bridges") is True
    prepared = fields.get("prepared")
    if isinstance(prepared, bytes):
        answer.prepared = prepared
    answer.complaints = _sentences(fields.get("complaints"))
    answer.notes = _sentences(fields.get("notes"))
    answer.lost = _sentences(fields.get("lost"))
    answer.collects = fields.get("collects") is True
    for name in ("begun_ns", "build_ns", "load_ns"):
        value = fields.get(name.replace("_", "-"))
        if isinstance(value, int):
            setattr(answer, name, value)
    reads = fields.get("reads")
    items: dict[object, object] = reads if isinstance(reads, dict) else {}  # pyright: ignore[reportUnknownVariableType]
    for state, versions in items.items():
        match versions:
            case [int(oldest), int(newest)]:
                answer.reads[str(state)] = (oldest, newest)
            case _:
                continue
    return answer


def _sentences(value: object) -> list[str]:
    if not isinstance(value, list):
        return []
    rows: list[object] = value  # pyright: ignore[reportUnknownVariableType]
    return [str(row)[:1000] for row in rows][:100]
