"""The program that runs now, as somebody would have to execute it again.

Not on the resume path: it is looked up once, when the program has settled, and kept open, so that a way back does not
depend on what lies under its name later.

Source: own.
"""

from __future__ import annotations

import fcntl
import os
import sys

from instar.cpr.errors import TargetError
from instar.cpr.target import HIGH, Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.cpr.adopted import Adopted

NOT_ON_DISK: Final = "this release is not on the disk any more"
_FIRST_FREE: Final = 3
_HELPERS: Final = ("guardian.py", "probe.py")


class OwnProgram:
    """How this program was started.

    Attributes:
        target: Its file, open.
        words: The words before its own arguments.
    """

    __slots__ = ("target", "words")

    def __init__(self, target: Target, words: list[str]) -> None:
        self.target = target
        self.words = words

    @classmethod
    def find(cls) -> OwnProgram:
        """Return the script that this process began with, or else the interpreter with its options.

        Raises:
            TargetError: Neither can be executed (any more).
        """
        path = getattr(sys.modules["__main__"], "__file__", None)
        try:
            if path:
                return cls(Target.open(os.path.abspath(path)), [path])
        except TargetError:  # python -m ..., or a file without permission: the interpreter can
            pass
        count = len(sys.argv) - 1
        words = sys.orig_argv[: len(sys.orig_argv) - count]
        return cls(Target.open(sys.executable), words)

    @classmethod
    def executed(cls, adopted: Adopted) -> OwnProgram | None:
        """Return the script that the program before this one executed, whatever lies under its name by now.

        Call it after the commit, before ``Adopted.settle``.

        Returns:
            None if it was no script, or cannot be executed any more: then it has to be found again.
        """
        path, argv, name = adopted.executed()
        fd = adopted.fds.take(name, 0)
        if fd < 0:
            return None
        target = Target(argv[0], path, fd)
        try:
            target.check()
        except TargetError:
            target.script = False
        if target.script:
            return cls(target, [path])
        target.close()
        return None


class ThisProgram:
    """A plain program, as it would be executed again: the very file that runs, even if another lies under its name now.

    Attributes:
        target: Its file, open; it is kept as long as the program runs.
        argv: All arguments.
        stamp: What the file was when this program began.
    """

    __slots__ = ("argv", "stamp", "target")

    def __init__(self, target: Target, argv: list[str]) -> None:
        self.target = target
        self.argv = argv
        self.stamp = stamp(target)

    @classmethod
    def started(cls) -> ThisProgram:
        """Return what a person or a service manager started; call it early.

        Raises:
            TargetError: It cannot be executed (any more).
        """
        own = OwnProgram.find()
        return cls(own.target, [*own.words, *sys.argv[1:]])

    @classmethod
    def executed(cls, adopted: Adopted) -> ThisProgram:
        """Return what the program before this one executed; call it after the commit, before ``settle``.

        Raises:
            TargetError: It cannot be executed (any more).
        """
        path, argv, name = adopted.executed()
        fd = adopted.fds.take(name, 0)
        if fd < 0:  # no script: the file is the kernel's, and has to be found again
            return cls(Target.open(path), argv)
        target = Target(argv[0], path, fd)
        target.check()
        return cls(target, argv)

    def lower(self) -> None:
        """Take the lowest number that is free, so that numbers do not wander from update to update."""
        low = -1
        for least in (HIGH, _FIRST_FREE):  # the first may be above RLIMIT_NOFILE
            try:
                low = fcntl.fcntl(self.target.fd, fcntl.F_DUPFD_CLOEXEC, least)
                break
            except OSError:
                continue
        if 0 <= low < self.target.fd:
            low, self.target.fd = self.target.fd, low
        if low >= 0:
            os.close(low)


def stamp(target: Target) -> tuple[int, ...]:
    """Return what changes when another file lies there, or this one is written to."""
    found = os.fstat(target.fd)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def check_release() -> None:
    """Check that the files of this release are where they were: an update needs helpers of its own.

    Raises:
        TargetError: They are not; nothing was changed.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    for name in _HELPERS:
        if not os.path.exists(os.path.join(here, name)):
            error = TargetError(f"{NOT_ON_DISK}: {here} has no {name}; nothing was changed")
            error.add_note("put the files of this version back where they were, and update then")
            raise error


def release() -> str:
    """Return what tells this build from another one of the same version: where it lies, and when it was written."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    newest = 0
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith((".py", ".so")):
                newest = max(newest, os.stat(os.path.join(place, name)).st_mtime_ns)
    return f"{folder}@{newest}"
