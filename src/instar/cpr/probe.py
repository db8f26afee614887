"""A child that finds out whether a program may be executed here, by executing it without letting it run.

It is executed by path with nothing but the standard library. ``probe.py FD PIPE``: the program, open, and where the
answer goes: ``{}`` (it may be), ``{"errno": N}`` (what the kernel says), ``{"signal": N}`` (a filter kills who tries).

First the kernel is asked (AT_EXECVE_CHECK, Linux 6.14), which a filter that kills answers, too. Then the program is
executed in a process that is traced: it is stopped before its first instruction, and ended there. This alone sees the
program's interpreter and loader. Where the kernel lets nobody be traced, the first answer has to do.

Source: execveat(2), ptrace(2); own.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

_EXECVEAT: Final = {"x86_64": 322, "aarch64": 281, "riscv64": 281}
_EMPTY_PATH: Final = 0x1000
_EXECVE_CHECK: Final = 0x10000
_TRACEME: Final = 0
_UNKNOWN: Final = 255  # an exit status that is no errno: this way tells nothing
_libc: Final = ctypes.CDLL(None, use_errno=True)


def ask(fd: int) -> int:
    """Return what the kernel says to executing ``fd``: 0 it may be, an errno, or 255 if it cannot be asked."""
    number = _EXECVEAT.get(platform.machine())
    if number is None:
        return _UNKNOWN
    argv = (ctypes.c_char_p * 2)(b"probe", None)
    flags = _EMPTY_PATH | _EXECVE_CHECK
    if _libc.syscall(number, fd, b"", argv, argv, flags) == 0:
        return 0
    number = ctypes.get_errno()
    return _UNKNOWN if number in (errno.EINVAL, errno.ENOSYS) else number


def execute(fd: int) -> int:
    """Execute ``fd`` under trace; returns an errno, or 255 if this process cannot be traced."""
    if _libc.ptrace(_TRACEME, 0, None, None) != 0:
        return _UNKNOWN
    try:
        os.execve(fd, ["probe"], os.environ)  # noqa: S606 - no shell
    except OSError as exc:
        return exc.errno or errno.EIO


def in_child(attempt: Callable[[int], int], fd: int) -> dict[str, int] | None:
    """Return the answer of a child that makes the attempt; None if this way tells nothing."""
    child = os.fork()
    if not child:
        os._exit(attempt(fd))
    _, status = os.waitpid(child, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        stop = os.WSTOPSIG(status)
        return {} if stop == signal.SIGTRAP else {"signal": stop}
    if os.WIFSIGNALED(status):
        return {"signal": os.WTERMSIG(status)}
    number = os.WEXITSTATUS(status)
    return None if number == _UNKNOWN else {"errno": number} if number else {}


def main() -> int:
    """Answer for one program."""
    fd, pipe = int(sys.argv[1]), int(sys.argv[2])
    answer = in_child(ask, fd)
    if not answer:  # allowed, or not known
        traced = in_child(execute, fd)
        # Killed for being traced, not for executing: the kernel's own answer stands.
        if traced is not None and not (answer == {} and "signal" in traced):
            answer = traced
    os.write(pipe, json.dumps(answer or {}).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
