"""Watch the guest's counter from outside: a program of its own, which nothing else of the benchmark delays.

``update_outside.py DESCRIPTOR OFFSET``: a memfd with a guest's memory, and where its page is. Writes lines, times are
host monotonic nanoseconds: ``gap BEFORE AFTER SURE`` when the counter stood still for 0.2 ms or more: the last look
that found it moving, the first that found it moving again, and for how long looks in between found it standing (this
program may itself be kept from looking); ``count TIME VALUE`` ten times a second. It ends with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import sys
import time

SHORTEST_NS = 200_000
REPORT_NS = 100_000_000
BETWEEN_S = 40e-6
_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29


def main() -> None:
    """Watch until killed."""
    descriptor, offset = int(sys.argv[1]), int(sys.argv[2])
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with contextlib.suppress(PermissionError):  # looks are then late at times, which SURE shows
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    page = mmap.mmap(descriptor, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset)
    watch(memoryview(page).cast("Q"))


def watch(words: memoryview[int]) -> None:
    """Look at the second word again and again."""
    now = time.monotonic_ns
    last, moved, looked = words[1], now(), now()
    report = moved
    while True:
        time.sleep(BETWEEN_S)
        at, value = now(), words[1]
        if value != last:
            if looked - moved >= SHORTEST_NS:
                print("gap", moved, at, looked - moved, flush=True)
            last, moved = value, at
        looked = at
        if at >= report:
            print("count", at, value, flush=True)
            report = at + REPORT_NS


if __name__ == "__main__":
    main()
