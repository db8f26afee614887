"""What the control groups of a process leave it.

Source: Linux Documentation/admin-guide/cgroup-v2.rst; proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from instar.cli.doctor.facts import UNLIMITED, Cgroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Read = Callable[[str], str]  # path to contents, empty if there is no such file


class Place(NamedTuple):
    """Where a group's files are: the mount, the folder in it, and the group's name."""

    mount: str
    folder: str
    name: str


def place(mountinfo: str, cgroup: str) -> Place | None:
    """Return where the group of version 2 is; None if there is none.

    Args:
        mountinfo: ``/proc/self/mountinfo``.
        cgroup: ``/proc/self/cgroup``.
    """
    name = next((line[3:] for line in cgroup.splitlines() if line.startswith("0::")), "")
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        words = before.split()
        if after.split()[:1] != ["cgroup2"] or len(words) < 5 or not name:
            continue
        inside = os.path.relpath(name, words[3])
        inside = "" if inside.startswith("..") else inside  # a group outside what is mounted here
        return Place(words[4], os.path.normpath(os.path.join(words[4], inside)), name)
    return None


def limits(where: Place | None, read: Read) -> Cgroup:
    """Return what is left by the group at ``where`` and those around it."""
    if where is None:
        return Cgroup()
    folders = list(_upwards(where.folder, where.mount))
    cpus = [share for folder in folders if (share := _share(read(f"{folder}/cpu.max"))) >= 0]
    return Cgroup(
        memory=_least(_left(read, folder, "memory") for folder in folders),
        processes=_least(_left(read, folder, "pids") for folder in folders),
        cpus=min(cpus, default=float(UNLIMITED)),
        name=where.name,
    )


def _upwards(folder: str, mount: str) -> Iterable[str]:
    while True:
        yield folder
        if folder == mount or folder in ("", "/"):
            return
        folder = os.path.dirname(folder)


def _left(read: Read, folder: str, kind: str) -> int:
    most, now = (read(f"{folder}/{kind}.{end}").strip() for end in ("max", "current"))
    if not most.isdecimal():  # "max", or the controller is not on here
        return UNLIMITED
    return max(0, int(most) - (int(now) if now.isdecimal() else 0))


def _share(text: str) -> float:
    words = text.split()
    if len(words) != 2 or not (words[0].isdecimal() and words[1].isdecimal() and int(words[1])):
        return UNLIMITED
    return int(words[0]) / int(words[1])


def _least(values: Iterable[int]) -> int:
    return min((value for value in values if value != UNLIMITED), default=UNLIMITED)
