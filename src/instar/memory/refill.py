"""Map inherited memory again in the background, before the guest comes to it page by page.

A new mapping of a memfd has no page tables: each first touch costs a fault, 150 to 250 ms per GiB and more while it is
translated. After an update the pages that exist are mapped a little at a time, so that neither the main loop nor the
guest waits for it; holes stay holes.

Not on the resume path. Source: own; madvise(2), MADV_POPULATE_WRITE (Linux 5.14).
"""

from __future__ import annotations

import os
from time import monotonic_ns
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from mmap import mmap

    from instar.loop import Loop, Timer
    from instar.memory.backend import RamBlock

CHUNK: Final = 2 << 20  # bytes at once: about 0.2 ms
REST: Final = 4
_LEAST_REST_NS: Final = 1_000_000
_MADV_POPULATE_WRITE: Final = 23  # not named by Python 3.11
_PAGE: Final = 4096


class Refill:
    """The pages of one block.

    Args:
        loop: The main loop.
        block: Shared memory with a descriptor.
        on_done: Called once, at the end.
        rest: How many times as long as a chunk took nothing is done after it; 0: nobody waits for this loop.
    """

    def __init__(
        self, loop: Loop, block: RamBlock, on_done: Callable[[], object], rest: int = REST
    ) -> None:
        self._loop = loop
        self._block = block
        self._on_done = on_done
        self._rest = rest
        self._at = 0
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begin in the loop's next turn."""
        self._timer = self._loop.call_later(0, self._turn)

    def stop(self) -> None:
        """Do no more of it; again is fine."""
        if self._timer is not None:
            self._timer.cancel()

    def _turn(self) -> None:
        began = monotonic_ns()
        self._at = map_some(self._block.fd, self._block.map, self._at)
        if self._at < 0:
            self._on_done()
            return
        rest = max(_LEAST_REST_NS, self._rest * (monotonic_ns() - began)) if self._rest else 0
        self._timer = self._loop.call_later(rest, self._turn)


def map_now(fd: int, mapping: mmap, limit_ns: int) -> None:
    """Map what exists, but begin with no further chunk after ``limit_ns``."""
    until, at = monotonic_ns() + limit_ns, 0
    while at >= 0 and monotonic_ns() < until:
        at = map_some(fd, mapping, at)


def map_some(fd: int, mapping: mmap, at: int) -> int:
    """Map the next pages that exist, a chunk at most.

    Args:
        fd: Shared memory.
        mapping: Of all of it.
        at: Where to begin, bytes.

    Returns:
        Where to go on; -1: there are none left, or the kernel cannot.
    """
    try:
        begin = os.lseek(fd, at, os.SEEK_DATA)
        end = os.lseek(fd, begin, os.SEEK_HOLE)
    except OSError:  # ENXIO: nothing but a hole up to the end
        return -1
    begin -= begin % _PAGE
    length = min(CHUNK, end - begin, len(mapping) - begin)
    if length <= 0:
        return -1
    try:
        mapping.madvise(_MADV_POPULATE_WRITE, begin, length)
    except OSError:  # a kernel before 5.14, or huge pages that cannot be split: a touch maps them
        return -1
    return begin + length
