"""Which programs an update may execute: named once at the start, kept over updates, never widened.

Source: own.
"""

from __future__ import annotations

import os

from instar.cpr.errors import TargetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from instar.cpr.target import Target


def check_allowed(target: Target, allowed: Sequence[str]) -> None:
    """Refuse a program that is not on the list; an empty list allows all.

    Args:
        target: The program, open: the very file, by device and inode, has to be one of the list's now, wherever and
            by whatever name it was found.
        allowed: Absolute paths: of programs, or of folders in which everything is allowed.

    Raises:
        TargetError: It is not.
    """
    if not allowed:
        return
    mine = os.fstat(target.fd)
    place = os.readlink(f"/proc/self/fd/{target.fd}")
    for path in allowed:
        try:
            theirs = os.stat(path)
        except OSError:  # it may come later
            continue
        if (theirs.st_dev, theirs.st_ino) == (mine.st_dev, mine.st_ino):
            return
        if place.startswith(os.path.realpath(path).rstrip("/") + "/") and _is(place, mine):
            return
    raise TargetError(
        f"{target.program} is not what -exec-allow names ({', '.join(allowed)}); "
        "nothing was executed and the guest was not stopped"
    )


def _is(path: str, found: os.stat_result) -> bool:
    """Return whether the name still leads to that file: a folder that was moved away would lie."""
    try:
        there = os.stat(path)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino)
