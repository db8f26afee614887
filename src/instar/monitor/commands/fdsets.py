"""Sets of descriptors: what a client opens for us, by number."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from instar.cpr.errors import CprError
from instar.errors import CommandError
from instar.monitor.command import Arg, command

if TYPE_CHECKING:
    from instar.monitor.context import ClientContext, Context


@dataclass
class AddFdInfo:
    """Where a descriptor went."""

    fdset_id: Annotated[int, Arg("The set.")]
    fd: Annotated[int, Arg("Its number in this process; updates keep it.")]


@dataclass
class FdInfo:
    """A descriptor of a set."""

    fd: Annotated[int, Arg("Its number in this process.")]
    opaque: Annotated[str | None, Arg("What was said of it; absent if nothing.")] = None


@dataclass
class FdSetInfo:
    """A set."""

    fdset_id: Annotated[int, Arg("Its number.")]
    fds: Annotated[list[FdInfo], Arg("Its descriptors.")]


@command()
def add_fd(
    ctx: ClientContext,
    *,
    fdset_id: Annotated[int | None, Arg("The set; absent: a new one.", le=(1 << 31) - 1)] = None,
    opaque: Annotated[str | None, Arg("For query-fdsets; at most 255 printable bytes.")] = None,
) -> AddFdInfo:
    """Put the descriptor that came with this request (SCM_RIGHTS) into a set; updates keep both numbers.

    /dev/fdset/N as the name of a file is the descriptor of set N that has the access mode which is needed.

    -> {"execute": "add-fd", "arguments": {"fdset-id": 3}}
    <- {"return": {"fdset-id": 3, "fd": 7}}
    """
    fd = ctx.take_gift()
    if fd < 0:
        raise CommandError("No file descriptor supplied via SCM_RIGHTS")
    try:
        if fdset_id is not None and fdset_id < 0:
            raise CommandError("Parameter 'fdset-id' expects a non-negative value")
        number = ctx.fd_sets.add(fd, -1 if fdset_id is None else fdset_id, opaque or "")
    except (CommandError, CprError):
        os.close(fd)
        raise
    return AddFdInfo(fdset_id=number, fd=fd)


@command()
def remove_fd(
    ctx: Context,
    *,
    fdset_id: Annotated[int, Arg("The set.")],
    fd: Annotated[int | None, Arg("One of its descriptors; absent: all of them.")] = None,
) -> None:
    """Close a descriptor of a set, or a whole set; what was opened from it stays open.

    -> {"execute": "remove-fd", "arguments": {"fdset-id": 1, "fd": 9}}
    <- {"return": {}}
    """
    if (fd is not None and fd < 0) or not ctx.fd_sets.remove(fdset_id, -1 if fd is None else fd):
        name = f"fdset-id:{fdset_id}" + ("" if fd is None else f", fd:{fd}")
        raise CommandError(f"File descriptor named '{name}' not found")


@command()
def query_fdsets(ctx: Context) -> list[FdSetInfo]:
    """List the sets of descriptors.

    -> {"execute": "query-fdsets"}
    <- {"return": [{"fdset-id": 1, "fds": [{"fd": 9, "opaque": "rdwr:disk.img"}]}]}
    """
    return [
        FdSetInfo(
            fdset_id=number, fds=[FdInfo(fd=fd, opaque=opaque or None) for fd, opaque in members]
        )
        for number, members in ctx.fd_sets.members().items()
    ]
