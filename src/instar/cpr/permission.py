"""The old program's end of :mod:`instar.cpr.probe`: may this program be executed, asked while work goes on.

Not on the resume path. Source: own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys

from instar.cpr.errors import TargetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.cpr.target import Target

_PROGRAM: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "probe.py")
_MAX_ANSWER: Final = 4096
_INSTEAD: Final = "this was tried in a child, the guest was not stopped; cpr-transfer needs no exec by this process"


class Permission:
    """One question; make one with :meth:`ask`.

    Attributes:
        pipe: Readable when there is an answer, or none will come.
    """

    def __init__(self, target: Target, pid: int, pipe: int) -> None:
        self.pipe = pipe
        self._target = target
        self._pid = pid

    @classmethod
    def ask(cls, target: Target) -> Permission:
        """Start the child.

        Raises:
            TargetError: Not even that may be executed; nothing is left behind.
        """
        pipe, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            argv = [sys.executable, "-I", "-S", _PROGRAM, str(target.fd), str(theirs)]
            actions = [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in (target.fd, theirs)]
            program = f"/proc/{os.getpid()}/exe"
            pid = os.posix_spawn(program, argv, os.environ, file_actions=actions, setpgroup=0)
        except OSError as exc:
            os.close(pipe)
            raise _refused(target, os.strerror(exc.errno or 0)) from exc
        finally:
            os.close(theirs)
        return cls(target, pid, pipe)

    def check(self) -> None:
        """Take the answer.

        Raises:
            TargetError: The program cannot be executed here; the text says what the kernel does.
        """
        data = os.read(self.pipe, _MAX_ANSWER)
        if not data:
            raise _refused(self._target, self._end())
        answer: dict[str, int] = json.loads(data)
        if "signal" in answer:
            raise _refused(self._target, f"who tries it is killed ({_name(answer['signal'])})")
        if "errno" in answer:
            raise _refused(self._target, os.strerror(answer["errno"])) from OSError(
                answer["errno"], os.strerror(answer["errno"])
            )

    def close(self) -> None:
        """End the child, if there still is one, and all that it started; again is fine."""
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1
        pid, self._pid = self._pid, 0
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _end(self) -> str:
        """Return how a child that said nothing ended."""
        pid, self._pid = self._pid, 0
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            return f"who tries it is killed ({_name(os.WTERMSIG(status))})"
        return f"the program that was to try it ended with status {os.WEXITSTATUS(status)}"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _refused(target: Target, why: str) -> TargetError:
    return TargetError(f"execvp {target.program} failed: {why}; {_INSTEAD}")
