"""The program that runs now, as somebody would have to execute it again.

Not on the resume path: it is looked up once, when the program has settled, and kept open, so that a way back does not
depend on what lies under its name later.

Source: own.
"""

from __future__ import annotations

import os
import sys

from instar.cpr.errors import TargetError
from instar.cpr.target import Target


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


def release() -> str:
    """Return what tells this build from another one of the same version: where it lies, and when it was written."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    newest = 0
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith((".py", ".so")):
                newest = max(newest, os.stat(os.path.join(place, name)).st_mtime_ns)
    return f"{folder}@{newest}"
