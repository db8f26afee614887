"""The old program's side of a rehearsal: start the next program beside this one, wait for its answer, judge it.

The child gets everything that an update would hand over, but memory and disks for reading only, and under another name
(``INSTAR_CPR_REHEARSAL``), so that a program that knows nothing of rehearsals cannot take over.

Not on the resume path. Source: own; docs/decisions/0008.
"""

from __future__ import annotations

import contextlib
import os
from time import monotonic_ns

from instar.cpr.adopted import REHEARSAL
from instar.cpr.carriers import ExecCarrier
from instar.cpr.encoding import decode
from instar.cpr.errors import CprError, UpdateRefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from instar.cpr.fds import Fds
    from instar.cpr.state import Record
    from instar.cpr.target import Target
    from instar.loop import Loop

REPORT: Final = ("rehearsal/report", 0)  # the name of the pipe that the child answers through
LIMIT_NS: Final = 30_000_000_000
_READ_ONLY: Final = ("memory", "block")  # kinds of descriptors
_MAX_REPORT: Final = 1 << 22  # bytes
_SIGKILL: Final = 9
_LAST_LINES: Final = 3
_STDERR: Final = 2


class Answer:
    """What the child told.

    Attributes:
        program: Its version.
        release: What tells two builds of one version apart.
        complaints: Why it could not take over; sentences.
        notes: What people should know; sentences.
        reads: State name -> (oldest, newest) version that it reads.
        begun_ns, build_ns, load_ns: From exec to its first own step, making the machine, loading it.
    """

    __slots__ = (
        "begun_ns", "build_ns", "complaints", "load_ns", "notes", "program", "reads", "release"
    )  # fmt: skip

    def __init__(self) -> None:
        self.program = ""
        self.release = ""
        self.complaints: list[str] = []
        self.notes: list[str] = []
        self.reads: dict[str, tuple[int, int]] = {}
        self.begun_ns = self.build_ns = self.load_ns = 0


class Rehearsal:
    """One rehearsal; make one, then :meth:`start`.

    Args:
        loop: The main loop.
        target: What to execute.
        argv: Its arguments.
        on_answer: Called once with the answer, from the main loop.
    """

    def __init__(
        self, loop: Loop, target: Target, argv: list[str], on_answer: Callable[[Answer], object]
    ) -> None:
        self._loop = loop
        self._target = target
        self._argv = argv
        self._on_answer = on_answer
        self._pid = 0
        self._pipe = -1
        self._said = -1  # a memfd: what the child wrote to standard error
        self._data = b""
        self._started_ns = 0
        self._timer = loop.call_later(LIMIT_NS, self._too_long)
        self._late = False

    def start(self, fds: Fds, info: Record) -> None:
        """Start the child.

        Args:
            fds: A table of its own, with everything that an update would hand over.
            info: As an update would tell.

        Raises:
            CprError, OSError: It cannot be started; nothing is left behind.
        """
        self._pipe, theirs = os.pipe2(os.O_CLOEXEC)
        carrier = ExecCarrier(self._target, self._argv)
        copies: list[int] = []
        try:
            fds.save(*REPORT, theirs, kind="pipe", owner="migration")
            self._said = os.memfd_create("instar-rehearsal", os.MFD_CLOEXEC)
            self._started_ns = monotonic_ns()
            carrier.save(fds, {**info, "started-ns": self._started_ns})
            actions = [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in carrier.descriptors]
            for entry in fds.walk():
                if entry.kind in _READ_ONLY:
                    path = f"/proc/self/fd/{entry.fd}"
                    copies.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                    actions.append((os.POSIX_SPAWN_DUP2, copies[-1], entry.fd))
            actions.append((os.POSIX_SPAWN_DUP2, self._said, _STDERR))
            environ = {**os.environ, REHEARSAL: str(carrier.descriptors[-1])}
            self._pid = os.posix_spawn(
                f"/dev/fd/{self._target.fd}",
                self._argv,
                environ,
                file_actions=actions,
                setpgroup=0,
            )
        except BaseException:
            self.stop()
            raise
        finally:
            carrier.drop()
            for fd in (theirs, *copies):
                os.close(fd)
        self._loop.watch(self._pipe, readable=self._read)

    def stop(self) -> None:
        """End the child, if there still is one; again is fine."""
        self._timer.cancel()
        if self._pipe >= 0:
            self._loop.unwatch(self._pipe)
            os.close(self._pipe)
            self._pipe = -1
        if self._said >= 0:
            os.close(self._said)
            self._said = -1
        pid, self._pid = self._pid, 0
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, _SIGKILL)
            os.waitpid(pid, 0)

    def _too_long(self) -> None:
        self._late = True
        self._finish()

    def _read(self) -> None:
        data = os.read(self._pipe, 1 << 16)
        self._data += data
        if not data or len(self._data) > _MAX_REPORT:
            self._finish()

    def _finish(self) -> None:
        answer = Answer()
        if self._late:
            answer.complaints = [f"it did not answer within {LIMIT_NS // 1_000_000_000} s"]
        elif not self._data:
            answer.complaints = [self._last_words()]
        else:
            try:
                answer = _answer_of(self._data)
            except CprError as e:
                answer.complaints = [f"its answer makes no sense: {e}"]
        self.stop()
        self._on_answer(answer)

    def _last_words(self) -> str:
        """Return what a child that did not answer wrote to standard error."""
        text = os.pread(self._said, 1 << 16, 0).decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not lines:
            return "it ended without an answer: it is not a version of this program"
        told = [line.partition(": error: ")[2] for line in lines if ": error: " in line]
        return "; ".join(told or lines[-_LAST_LINES:])[:1000]


def judge(answer: Answer, program: str) -> None:
    """Refuse the update if the child complained.

    Raises:
        UpdateRefusedError: With all that it said.
    """
    if answer.complaints:
        error = UpdateRefusedError(
            f"rehearsal of {program}: {answer.complaints[0]}; the guest was not stopped"
        )
        for text in answer.complaints[1:]:
            error.add_note(text)
        raise error


def _answer_of(data: bytes) -> Answer:
    record = decode(data, "rehearsal")
    answer = Answer()
    if not isinstance(record, dict):
        raise UpdateRefusedError("it is not a record")
    fields: Record = record  # pyright: ignore[reportUnknownVariableType]
    answer.program = str(fields.get("program", ""))[:100]
    answer.release = str(fields.get("release", ""))[:100]
    answer.complaints = _sentences(fields.get("complaints"))
    answer.notes = _sentences(fields.get("notes"))
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
