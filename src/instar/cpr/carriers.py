"""How descriptors and a little news travel to the program that takes over: through ``exec``.

The table of descriptors lies in a sealed memfd, whose number is told in one environment variable of the new
program only. Close-on-exec is cleared on exactly the named descriptors, immediately before ``exec``; if
``exec`` returns, everything is as it was. The other side is ``adopted``.
"""

from __future__ import annotations

import fcntl
import os
import sys
from zlib import crc32

from instar.cpr.adopted import FORMAT, HEADER, MAGIC, SCRIPT, SEALS, VARIABLE, restore
from instar.cpr.encoding import encode
from instar.cpr.errors import ExecFailedError
from instar.cpr.fds import set_cloexec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final, NoReturn

    from instar.cpr.fds import Fds
    from instar.cpr.state import Record
    from instar.cpr.target import Target

_FIRST_FREE: Final = 3  # with closed standard streams a new descriptor would pass for one of them


class ExecCarrier:
    """Replace this process's program; descriptors keep their numbers.

    Args:
        target: What to execute; stays open and is not closed here.
        argv: Arguments, the program's name first.
    """

    __slots__ = ("_argv", "_closing", "_inherited", "_memfd", "_target")

    def __init__(self, target: Target, argv: list[str]) -> None:
        self._target = target
        self._argv = argv
        self._memfd = -1
        self._inherited: list[int] = []
        self._closing: list[int] = []  # those of them that are close-on-exec until exec

    def save(self, fds: Fds, info: Record) -> None:
        """Write down what the new program gets; nothing is inheritable yet. Again: replaces.

        Args:
            fds: The descriptors.
            info: Whatever the new program should be told (phases of the update so far, ...).

        Raises:
            DescriptorError: A descriptor is not what it was when it was saved.
            OSError: No memory or descriptor for the memfd. Nothing stays behind.
        """
        self.drop()
        table = fds.copy()
        table.verify()
        if self._target.script:
            table.save(SCRIPT, 0, self._target.fd, kind="program", owner="cpr")
        record = {
            "fds": table.to_record(),
            "info": info,
            "program": self._target.program,
            "path": self._target.path,
            "argv": self._argv,
        }
        data = encode(record)
        header = HEADER.pack(MAGIC, FORMAT, len(data), crc32(data))
        self._memfd = sealed("instar-cpr", header + data)
        self._inherited = table.numbers()
        closing = [entry.fd for entry in table.walk() if not os.get_inheritable(entry.fd)]
        self._closing = [*closing, *table.member_numbers(), self._memfd]

    @property
    def descriptors(self) -> list[int]:
        """All that will cross, the table itself last; for a guardian."""
        return [*self._inherited, self._memfd]

    def execute(self, environ: Mapping[str, str]) -> NoReturn:
        """Become the new program.

        Args:
            environ: Its environment, to which the variable is added; this process's own is not touched.

        Raises:
            ExecFailedError: ``execvp <program> failed: <reason>``; the descriptors are close-on-exec as they
                were, the memfd is closed, and the old program goes on.
        """
        flush_streams()
        number = str(self._memfd)
        try:
            set_cloexec(self._closing, on=False)
            os.execve(self._target.fd, self._argv, {**environ, VARIABLE: number})  # noqa: S606 - no shell
        except (OSError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else str(exc)
            raise ExecFailedError(f"execvp {self._target.program} failed: {why}") from exc
        finally:
            restore(self._closing)
            self.drop()
        raise AssertionError("exec neither worked nor failed")

    def drop(self) -> None:
        """Forget what was saved; again is fine."""
        fd, self._memfd = self._memfd, -1
        self._inherited, self._closing = [], []
        if fd >= 0:
            os.close(fd)


def flush_streams() -> None:
    """Write out what ``print()`` holds back: it would be gone."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # closed, or its reader is gone
            continue


def sealed(name: str, data: bytes) -> int:
    """Return a memfd, close-on-exec, that has these bytes and will never have others.

    Raises:
        OSError: no memory or descriptor for it.
    """
    low = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(low, left) :]
        fcntl.fcntl(low, fcntl.F_ADD_SEALS, SEALS)
        return fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    finally:
        os.close(low)
