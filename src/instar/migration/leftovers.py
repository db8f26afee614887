"""What the program before left running beside an update, and its end: guardian, bridge, and tasks that hold old memory.

Not on the resume path: the guest runs by then. Source: own; docs/decisions/0008 and 0011.
"""

from __future__ import annotations

import os

from instar.cpr.keeper import PATIENCE_MS, left

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.loop import Loop

_SIGKILL: Final = 9
_AGAIN_NS: Final = 1_000_000_000


def end_child(pid: object) -> None:
    """End and reap a process that stood by and was told to go; one that is stopped does not hear.

    Args:
        pid: Of the guardian or of a bridge, as the program before told; anything else: there was none.
    """
    if type(pid) is not int or pid in (
        0,
        os.getpid(),
    ):  # the guardian may have become this program
        return
    try:
        if not os.waitpid(pid, os.WNOHANG)[0]:
            os.kill(pid, _SIGKILL)
            os.waitpid(pid, 0)
    except OSError:  # it is the child of another
        return


def see_to_keepers(loop: Loop, pids: list[int]) -> None:
    """Collect the ends of the tasks that tear the old memory down, whenever they come.

    Args:
        loop: The main loop.
        pids: Their processes; those whose end was collected are taken out of it.
    """
    pids[:] = left(pids)
    for pid in list(pids):
        _see_to(loop, pids, pid)


def _see_to(loop: Loop, pids: list[int], pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:  # it is over
        left([pid])
        pids.remove(pid)
        return
    except OSError:  # the host has no descriptor left; its end can wait
        loop.call_later(_AGAIN_NS, lambda: _see_to(loop, pids, pid))
        return
    timer = loop.call_later(PATIENCE_MS * 1_000_000, lambda: os.kill(pid, _SIGKILL))

    def ended() -> None:
        timer.cancel()
        loop.unwatch(process)
        os.close(process)
        left([pid])
        pids.remove(pid)

    loop.watch(process, readable=ended)
