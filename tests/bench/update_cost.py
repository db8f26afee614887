"""What an update costs the host: processor time and memory of all processes below this one."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from typing import NamedTuple

EVERY_S = 0.005
_PR_SET_CHILD_SUBREAPER = 36
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
# What a process has beside the guest's memory, which is shared and is not copied.
_COUNTED = ("Pss_Anon:", "Pss_File:")


class Cost(NamedTuple):
    """What an update took.

    Attributes:
        cpu_ms: Processor time of all processes, without what the idle guest took meanwhile. Processes that ended are
            counted in steps of 10 ms.
        peak_mib: Memory beside the guest's, more than before, at the most.
        held_mib: The same when the update was over.
    """

    cpu_ms: float
    peak_mib: float
    held_mib: float


class Meter:
    """Watches all processes below this one, except some, from ``begin`` to ``end``."""

    def __init__(self, others: set[int]) -> None:
        self._others = others
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._spent: dict[int, tuple[int, float]] = {}  # process: its parent, seconds
        self._peak = 0.0

    def begin(self) -> None:
        """Take the idle guest's processor time for a second, then watch."""
        first, at = self._cpu_s(), time.monotonic()
        time.sleep(1.0)
        self._begun, self._began = self._cpu_s(), time.monotonic()
        self._idle_rate = (self._begun - first) / (self._began - at)
        self._memory = self._memory_mib()
        self._thread.start()

    def end(self) -> Cost:
        """Return what it took."""
        self._over.set()
        self._thread.join()
        spent = self._cpu_s() - self._begun
        idle = self._idle_rate * (time.monotonic() - self._began)
        held = self._memory_mib() - self._memory
        return Cost(max(spent - idle, 0.0) * 1000, max(self._peak - self._memory, 0.0), held)

    def _run(self) -> None:
        while not self._over.wait(EVERY_S):
            self._cpu_s()
            self._peak = max(self._peak, self._memory_mib())

    def _cpu_s(self) -> float:
        seen: dict[int, tuple[int, float]] = {}
        for pid in descendants(self._others):
            with contextlib.suppress(OSError):
                seen[pid] = cpu(pid)
        # One whose parent is a monitor is counted by that; ours that are gone are not counted by anybody else.
        kept = {pid: known for pid, known in self._spent.items() if known[0] == os.getpid()}
        self._spent = {**kept, **seen}
        return sum(seconds for _, seconds in self._spent.values())

    def _memory_mib(self) -> float:
        return sum(memory_kib(pid) for pid in descendants(self._others)) / 1024


def adopt_orphans() -> None:
    """Have processes whose parent ends become children of this one, so that they are found, counted and ended."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(others: set[int]) -> list[int]:
    """Return all processes below this one, except ``others`` and what is below them."""
    found: list[int] = []
    left = [os.getpid()]
    while left:
        new = [pid for pid in children(left.pop()) if pid not in others]
        found += new
        left += new
    return found


def children(pid: int) -> list[int]:
    """Return the children of a process; none if it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as stream:
                found += [int(word) for word in stream.read().split()]
    return found


def cpu(pid: int) -> tuple[int, float]:
    """Return a process's parent, and its seconds of processor time with those of the children that it has waited for.

    Source: proc_pid_stat(5); the clock's number is that of clock_getcpuclockid(3).
    """
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stream:
        fields = stream.read().rpartition(")")[2].split()
    own = time.clock_gettime((~pid << 3) | 2)
    return int(fields[1]), own + (int(fields[13]) + int(fields[14])) * _TICK_S


def memory_kib(pid: int) -> int:
    """Return a process's share of memory beside the guest's; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as stream:
            rows = [line.split() for line in stream]
    except OSError:
        return 0
    return sum(int(row[1]) for row in rows if row[0] in _COUNTED)
