"""Processes that a rehearsal's child left behind: whoever could still write to its pipes is found and ended.

A process keeps what it inherited, whatever its group, session and environment: the inode of a pipe finds it.

Not on the resume path. Source: own; docs/decisions/0008; proc(5).
"""

from __future__ import annotations

import contextlib
import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final

_ROUNDS: Final = 4  # what starts others while it is hunted is hunted again
_DYING_MS: Final = 250  # a process that was killed may take so long to let go
_SIGKILL: Final = 9
_NAMED: Final = 4  # in one sentence
_PROGRAM_SHOWN: Final = 40  # characters


def writers_of(pipe: int) -> dict[int, str]:
    """Return the processes, except this one, that have the other end of a pipe: number -> name of the program.

    Those of other users cannot be looked into and are not among them.

    Args:
        pipe: The end that is read.

    Raises:
        OSError: This program has no descriptor left to look with.
    """
    inode = f"pipe:[{os.fstat(pipe).st_ino}]"
    found: dict[int, str] = {}
    for name in os.listdir("/proc"):
        if not (name.isascii() and name.isdigit()) or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if any(_writes(name, number) for number in _numbers(name, inode)):
                found[int(name)] = _program(name)
    return found


def end_writers(pipe: int, held: Callable[[], bool]) -> bool:
    """End those processes, and those that they start meanwhile.

    Args:
        pipe: The end that is read.
        held: Whether somebody could still write.

    Returns:
        Whether nobody can any more.

    Raises:
        OSError: This program has no descriptor left to look with.
    """
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    for _ in range(_ROUNDS):
        if not held():
            return True
        for pid in writers_of(pipe):
            with contextlib.suppress(OSError):
                os.kill(pid, _SIGKILL)
        poll.poll(_DYING_MS)
    return not held()


def complaint(found: dict[int, str]) -> str:
    """Return the sentence about processes that went on when the child had ended."""
    if not found:
        return (
            "a process that it started goes on with the guest's descriptors; it is not to be found"
        )
    rest = len(found) - _NAMED
    named = [f"{pid} ({program})" for pid, program in sorted(found.items())[:_NAMED]]
    who = ", ".join([*named, *([f"{rest} more"] if rest > 0 else [])])
    if len(found) == 1:
        return f"process {who}, which it started, goes on with the guest's descriptors"
    return f"processes {who}, which it started, go on with the guest's descriptors"


def _numbers(pid: str, inode: str) -> Iterator[str]:
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/fd/{number}") == inode:
                yield number


def _writes(pid: str, number: str) -> bool:
    with open(f"/proc/{pid}/fdinfo/{number}", "rb") as file:
        for line in file.read(1 << 12).splitlines():
            key, _, value = line.partition(b":")
            if key == b"flags":
                return int(value, 8) & os.O_ACCMODE != os.O_RDONLY
    return False


def _program(pid: str) -> str:
    with open(f"/proc/{pid}/comm", "rb") as file:
        text = file.read(1 << 12).decode(errors="replace").strip()
    return text[:_PROGRAM_SHOWN] if text.isprintable() else repr(text)[:_PROGRAM_SHOWN]
