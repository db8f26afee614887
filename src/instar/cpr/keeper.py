"""Keep the old program's address space alive across ``exec``, so that tearing it down is no part of the pause.

A task that shares it (``clone(CLONE_VM)``) waits at a pipe. The next program inherits the other end, and closes it when
work goes on; then the task ends, and what it held is torn down in its context. Whatever else becomes of that program,
the pipe ends with it. The task has no other descriptor. It is a child, whose end the program that goes on collects.

Not on the resume path. Source: own; docs/decisions/0011.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

from instar.cpr.errors import NoKeeperError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

KEEPERS: Final = (
    "keepers"  # the key of the news: processes of which the next program collects the end
)
MAX_KEEPERS: Final = 64  # that are taken from another program's news
PATIENCE_MS: Final = (
    10_000  # a task that has not ended by then was stopped, or something holds its pipe
)
_READY_MS: Final = 1000
_LAST: Final = 19  # of priorities
_STACK: Final = 65536  # bytes
_WCLONE: Final = -(1 << 31)  # __WCLONE: children that give no SIGCHLD, and no others
_SIGKILL: Final = 9
_LOOK_S: Final = 0.002


class Keeper:
    """One task, for one update; make one with :meth:`start`.

    Attributes:
        pid: Its process, a child of this one that ``waitpid`` alone does not find.
        hold: Our end of its pipe, to be inherited.
    """

    def __init__(self, pid: int, hold: int, stack: mmap) -> None:
        self.pid = pid
        self.hold = hold
        self._stack = stack  # the task's as long as it lives

    @classmethod
    def start(cls) -> Keeper:
        """Start the task, and wait until it has closed all descriptors but its pipe.

        Raises:
            NoKeeperError: It is not to be had here; nothing is left behind.
        """
        try:
            from instar.cpr._keeper import start  # noqa: PLC0415 - compiled, and not everywhere
        except ImportError as exc:
            raise NoKeeperError("the part of Instar that is compiled for it is missing") from exc
        pipes: list[int] = []
        stack = None
        try:
            pipes += os.pipe()
            pipes += os.pipe()
            hold, ours, ready, said = pipes
            stack = mmap(-1, _STACK, flags=MAP_PRIVATE | MAP_ANONYMOUS)
            made = cls(start(stack, hold, said), ours, stack)
            made.step_back()
        except OSError as exc:
            if stack is not None:
                stack.close()
            for fd in pipes:
                os.close(fd)
            raise NoKeeperError(os.strerror(exc.errno or 0)) from exc
        os.close(hold)
        os.close(said)
        if not _has_closed_all(ready):
            made.end()
            raise NoKeeperError("the task could not close its descriptors")
        return made

    def step_back(self) -> None:
        """Let everything else go first: it tears an address space down while the guest wants to go on."""
        with suppress(OSError):  # a sandbox does not let it: then it takes its share
            os.setpriority(os.PRIO_PROCESS, self.pid, _LAST)

    def end(self) -> None:
        """End the task, and collect its end; the address space is this program's alone again."""
        os.close(self.hold)
        _await(
            self.pid, 0
        )  # it need not see the end of its pipe, which others may have inherited by now
        self._stack.close()


def _has_closed_all(ready: int) -> bool:
    """Wait for the task's word, and close ``ready``: the end of file comes when it has closed that end as well."""
    poll = select.poll()
    poll.register(ready, select.POLLIN)
    said = b""
    try:
        while poll.poll(_READY_MS):
            word = os.read(ready, 8)
            if not word:
                return bool(said)
            said += word
        return False
    finally:
        os.close(ready)


def pids_of(news: object) -> list[int]:
    """Return the processes that another program named; what is none is left out."""
    rows: list[object] = news if isinstance(news, list) else []  # pyright: ignore[reportUnknownVariableType]
    return [pid for pid in rows[:MAX_KEEPERS] if type(pid) is int and 1 < pid < 1 << 31]


def left(pids: list[int]) -> list[int]:
    """Collect the ends of those that are over, at once; return the others."""
    found: list[int] = []
    for pid in pids:
        try:
            if not os.waitpid(pid, os.WNOHANG | _WCLONE)[0]:
                found.append(pid)
        except ChildProcessError:  # it is over, or the child of another: the guardian went on
            continue
    return found


def await_all(pids: list[int]) -> None:
    """Wait for their ends, and end those that do not by themselves; for a thread that has time."""
    for pid in pids:
        _await(pid, PATIENCE_MS)


def _await(pid: int, limit_ms: int) -> None:
    """Collect its end; no descriptor is needed, for the host may have none left."""
    until = time.monotonic_ns() + limit_ms * 1_000_000
    try:
        while not os.waitpid(pid, os.WNOHANG | _WCLONE)[0]:
            if time.monotonic_ns() >= until:
                os.kill(pid, _SIGKILL)
                os.waitpid(pid, _WCLONE)
                return
            time.sleep(_LOOK_S)
    except (ChildProcessError, ProcessLookupError):  # somebody else was faster
        return
