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
        if not self._map_some():
            self._on_done()
            return
        rest = max(_LEAST_REST_NS, self._rest * (monotonic_ns() - began)) if self._rest else 0
        self._timer = self._loop.call_later(rest, self._turn)

    def _map_some(self) -> bool:
        """Map the next pages that exist; false if there are none, or the kernel cannot."""
        block = self._block
        try:
            at = os.lseek(block.fd, self._at, os.SEEK_DATA)
            end = os.lseek(block.fd, at, os.SEEK_HOLE)
        except OSError:  # ENXIO: nothing but a hole up to the end
            return False
        at -= at % _PAGE
        length = min(CHUNK, end - at, block.size - at)
        if length <= 0:
            return False
        try:
            block.map.madvise(_MADV_POPULATE_WRITE, at, length)
        except (
            OSError
        ):  # a kernel before 5.14, or huge pages that cannot be split: the guest's touch maps them
            return False
        self._at = at + length
        return True
