"""The old program's side of a rehearsal: start the next program beside this one, wait for its answer, judge it.

The child gets everything that an update would hand over, but memory and disks for reading only, and under another name
(``INSTAR_CPR_REHEARSAL``), so that a program that knows nothing of rehearsals cannot take over.

Not on the resume path. Source: own; docs/decisions/0008.
"""

from __future__ import annotations

import contextlib
import os
import sys
from errno import EMFILE, ENFILE, ENOMEM
from resource import RLIMIT_NOFILE, getrlimit
from stat import S_ISREG
from time import monotonic_ns

from instar import log, sandbox
from instar.cpr.adopted import REHEARSAL
from instar.cpr.carriers import ExecCarrier
from instar.cpr.errors import CprError, UpdateRefusedError
from instar.cpr.rehearsal import REPORT, Answer, answer_of, last_words
from instar.migration.stragglers import complaint, end_writers, writers_of
from instar.sandbox.rehearsal import filters_for_anybody

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from instar.cpr.fds import Entry, Fds
    from instar.cpr.state import Record
    from instar.cpr.target import Target
    from instar.loop import Loop, Timer

    Action = tuple[int, int, int] | tuple[int, int, str, int, int]

MARK: Final = "INSTAR_CPR_MARK"  # variable that tells people whose rehearsal a process is of
_READ_ONLY: Final = ("memory", "block", "memfd", "inflight")  # kinds of descriptors
_MAX_REPORT: Final = 1 << 22  # bytes
_PIECE: Final = 1 << 16  # bytes read at once, and kept of what is only said
_ENDING_NS: Final = 2_000_000_000  # a child that has answered may take so long to end
_LAUNCHER: Final = os.path.join(os.path.dirname(sandbox.__file__), "launch.py")
_ALIVE: Final = "what it left behind could not be ended and goes on with the guest's descriptors"
_SHORT: Final = (EMFILE, ENFILE, ENOMEM)
_SIGKILL: Final = 9
_STDERR: Final = 2


class Rehearsal:
    """One rehearsal; make one, then :meth:`start`.

    Args:
        loop: The main loop.
        target: What to execute.
        argv: Its arguments.
        limit_ns: How long it may take.
        on_answer: Called once with the answer, from the main loop; the child has ended and is reaped then.
    """

    def __init__(
        self,
        loop: Loop,
        target: Target,
        argv: list[str],
        limit_ns: int,
        on_answer: Callable[[Answer], object],
    ) -> None:
        self._loop = loop
        self._target = target
        self._argv = argv
        self._limit_ns = limit_ns
        self._on_answer = on_answer
        self._child = -1
        self._pidfd = -1
        self._mark = ""
        self._pipe = _Source(loop, self._finish)
        self._said = _Source(
            loop, self._finish
        )  # what the child wrote to standard output and error
        self._timer: Timer | None = None
        self._late = False
        self._left = False  # somebody could not be ended
        self._notes: list[str] = []  # what people should know of its filters

    def start(self, fds: Fds, info: Record) -> None:
        """Start the child.

        Args:
            fds: A table of its own, with everything that an update would hand over.
            info: As an update would tell.

        Raises:
            CprError: It cannot be started; nothing is left behind.
        """
        try:
            self._begin(fds, info)
            self._timer = self._loop.call_later(self._limit_ns, self._too_long)
            self._loop.watch(self._pidfd, readable=self._ended)
            self._pipe.watch()
            self._said.watch(last=False)
        except OSError as e:
            self.stop()
            raise _not_started(e, self._argv[0]) from e
        except BaseException:
            self.stop()
            raise

    def _begin(self, fds: Fds, info: Record) -> None:
        """Start the child; of what was made for it alone nothing is open afterwards, so that its pipes can end."""
        carrier = ExecCarrier(self._target, self._argv)
        handed: list[int] = []  # copies that are the child's alone
        try:
            handed.append(self._pipe.open())
            handed.append(self._said.open())
            fds.save(*REPORT, handed[0], kind="pipe", owner="migration")
            began_ns = monotonic_ns()
            self._mark = f"{MARK}={os.getpid()}.{began_ns}"
            carrier.save(fds, {**info, "started-ns": began_ns})
            actions = self._actions(fds, carrier, handed)
            self._spawn(carrier, actions)
        finally:
            carrier.drop()
            for fd in handed:
                os.close(fd)

    def _actions(self, fds: Fds, carrier: ExecCarrier, handed: list[int]) -> list[Action]:
        """Return what is done to descriptors between fork and exec; what is made for that is added to ``handed``."""
        theirs, said = handed
        numbers = set(fds.numbers())
        actions: list[Action] = [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in carrier.descriptors]
        if 0 not in numbers:
            actions.append((os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0))
        actions += [(os.POSIX_SPAWN_DUP2, said, n) for n in (1, _STDERR) if n not in numbers]
        shared: list[int] = []
        for entry in fds.walk():
            copy = _opened_again(entry)
            if copy >= 0:
                handed.append(copy)
                actions.append((os.POSIX_SPAWN_DUP2, copy, entry.fd))
            elif entry.fd != theirs:
                shared.append(entry.fd)
        filters = os.memfd_create("instar-filters", os.MFD_CLOEXEC)
        handed.append(filters)
        data, self._notes = filters_for_anybody(shared, os.uname().machine)
        os.write(filters, data)
        program = self._target.fd
        return [*actions, *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in (filters, program))]

    def _spawn(self, carrier: ExecCarrier, actions: list[Action]) -> None:
        filters = actions[-2][1]
        kind = "script" if self._target.script else "binary"
        argv = [
            sys.executable,
            "-I",
            "-S",
            _LAUNCHER,
            str(filters),
            str(self._target.fd),
            kind,
            *self._argv,
        ]
        mark, _, value = self._mark.partition("=")
        environ = {**os.environ, REHEARSAL: str(carrier.descriptors[-1]), mark: value}
        self._child = os.posix_spawn(
            f"/proc/{os.getpid()}/exe",
            argv,
            environ,
            file_actions=actions,
            setpgroup=0,
            setsigmask=(),
        )
        self._pidfd = os.pidfd_open(self._child)

    def stop(self) -> None:
        """End the child, if there still is one, without an answer; again is fine."""
        self._stop_listening()
        self._kill()
        if self._child >= 0:
            os.waitpid(self._child, 0)
            self._child = -1
        if self._pidfd >= 0:
            self._loop.unwatch(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        try:
            for source in (self._pipe, self._said):
                if not source.end_writers():
                    self._left = True
        except OSError as e:
            self._left = True
            log.error(f"what a rehearsal of {self._argv[0]} left behind cannot be looked for: {e}")
        finally:
            self._pipe.close()
            self._said.close()

    def _stop_listening(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._pipe.unwatch()
        self._said.unwatch()

    def _kill(self) -> None:
        if self._child >= 0:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child, _SIGKILL)

    def _too_long(self) -> None:
        self._late = True
        self._finish()

    def _finish(self) -> None:
        """See to the child's end: it has told what it had to tell, or too much, or time is up."""
        self._stop_listening()
        if self._late or not self._pipe.ended:
            self._kill()
        else:
            self._timer = self._loop.call_later(_ENDING_NS, self._kill)

    def _ended(self) -> None:
        self._pipe.drain()
        self._said.drain()
        answer = self._answer()
        expected = not self._late and not self._pipe.flooded and not self._said.flooded
        if expected and self._pipe.held_by_others():
            answer.complaints = [*answer.complaints, complaint(self._pipe.writers())]
        self.stop()
        if self._left:
            answer.complaints = [*answer.complaints, _ALIVE]
        self._on_answer(answer)

    def _answer(self) -> Answer:
        answer = Answer()
        if self._late:
            answer.complaints = [f"it did not answer within {self._limit_ns // 1_000_000} ms"]
        elif self._pipe.flooded or self._said.flooded:
            answer.complaints = ["it writes without an end"]
        elif not self._pipe.data:
            answer.complaints = [last_words(bytes(self._said.data))]
        else:
            try:
                answer = answer_of(bytes(self._pipe.data))
            except CprError as e:
                answer.complaints = [f"its answer makes no sense: {e}"]
        answer.notes = [*self._notes, *answer.notes]
        return answer


class _Source:
    """One end of a pipe and what came out of it.

    Attributes:
        data: What came; of a flood, its end.
        ended: There is nothing more, and nobody who could write.
        flooded: More came than is taken.
    """

    __slots__ = ("_done", "_fd", "_last", "_loop", "_total", "data", "ended", "flooded")

    def __init__(self, loop: Loop, done: Callable[[], object]) -> None:
        self._loop = loop
        self._done = done
        self._fd = -1
        self._last = True
        self._total = 0
        self.data = bytearray()
        self.ended = False
        self.flooded = False

    def open(self) -> int:
        """Make the pipe; return its other end."""
        self._fd, theirs = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._fd, False)
        return theirs

    def watch(self, *, last: bool = True) -> None:
        """Listen in the main loop, and call ``done`` at a flood, and at the end if this is the ``last`` to hear."""
        self._last = last
        self._loop.watch(self._fd, readable=self._read)

    def unwatch(self) -> None:
        """Stop that."""
        if self._fd >= 0:
            self._loop.unwatch(self._fd)

    def drain(self) -> None:
        """Take what is there."""
        while self._fd >= 0 and not self.ended and not self.flooded and self._take():
            continue

    def held_by_others(self) -> bool:
        """Whether somebody could still write."""
        self.drain()
        return self._fd >= 0 and not self.ended

    def writers(self) -> dict[int, str]:
        """Return who could still write (see :func:`writers_of`); nobody, if that cannot be found out."""
        with contextlib.suppress(OSError):
            return writers_of(self._fd)
        return {}

    def end_writers(self) -> bool:
        """End those; returns whether nobody is left.

        Raises:
            OSError: This program has no descriptor left to look with.
        """
        return not self.held_by_others() or end_writers(self._fd, self.held_by_others)

    def close(self) -> None:
        """Close this end."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _take(self) -> bool:
        try:
            data = os.read(self._fd, _PIECE)
        except BlockingIOError:
            return False
        self.ended = not data
        self._total += len(data)
        self.flooded = self._total > _MAX_REPORT
        self.data += data
        if not self._last:
            del self.data[:-_PIECE]
        return True

    def _read(self) -> None:
        self._take()
        if self.ended:
            self.unwatch()
        if self.flooded or (self.ended and self._last):
            self._done()


def _opened_again(entry: Entry) -> int:
    """Return another open file of the same, for reading only; -1 if that cannot be, and the child gets the very one."""
    mode = os.fstat(entry.fd).st_mode
    if entry.kind not in _READ_ONLY and not S_ISREG(mode):
        return -1
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        return os.open(f"/proc/self/fd/{entry.fd}", flags)
    except OSError as e:
        if e.errno in _SHORT:  # not the very one, which can be written to
            raise
        return -1  # given by somebody who may open more than we


def _not_started(error: OSError, program: str) -> UpdateRefusedError:
    """Return why a rehearsal did not begin, with the limit that was met."""
    why = error.strerror or str(error)
    if error.errno == EMFILE:
        why += f" (the limit of open files is {getrlimit(RLIMIT_NOFILE)[0]})"
    return UpdateRefusedError(
        f"rehearsal of {program}: it cannot be started: {why}; the guest was not stopped"
    )
