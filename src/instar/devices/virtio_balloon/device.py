"""virtio-balloon: the guest gives memory back to the host.

Source: virtio 1.2, 5.5 (device 5).
"""

from __future__ import annotations

from struct import Struct

from instar.devices.virtio_balloon.state import TAGS, UNKNOWN, BalloonState
from instar.errors import QueueError
from instar.virtio.device import VirtioDevice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import ClassVar, Final, Protocol

    from instar.cpr.state import State
    from instar.virtio.queue import Chain, Queue

    class Pages(Protocol):
        """The host's side: guest RAM as pages of the host."""

        def give_back(self, gpa: int, length: int, /) -> None:
            """Make these bytes zero and free their pages; GuestMemoryError if they are not all RAM: nothing done."""
            ...


F_STATS_VQ: Final = 1 << 1
F_DEFLATE_ON_OOM: Final = 1 << 2
F_REPORTING: Final = 1 << 5

PAGE_SHIFT: Final = 12  # of the numbers in the queues, whatever the guest's pages are
MAX_PAGES: Final = 4096  # in one chain; Linux has 256
MAX_STATS: Final = 4096  # bytes; Linux 6 has 160
_PAGE: Final = 1 << PAGE_SHIFT
_CONFIG: Final = Struct("<IIII")  # num_pages, actual, and two of features that are not offered
_ACTUAL_OFFSET: Final = 4
_STAT: Final = Struct("<HQ")
_WORD: Final = 4
_STATS: Final = 2  # number of its queue


class VirtioBalloon(VirtioDevice):
    """Take pages that the guest does without.

    Args:
        pages: The guest's RAM.
        changed: Called when the guest says how much it has given back, with the machine lock held, in the vCPU thread.
        deflate_on_oom: The guest may take pages back by itself when it has no others.
        reporting: The guest reports pages that it does not use now.
        state_id: Unique name of its state.
    """

    __slots__ = ("_changed", "_features", "pages", "state")
    state_class: ClassVar[type[State]] = BalloonState
    device_id = 5
    queues: ClassVar[tuple[str, ...]] = ("inflate", "deflate", "stats", "reporting")

    def __init__(
        self,
        pages: Pages,
        changed: Callable[[], object],
        *,
        deflate_on_oom: bool,
        reporting: bool,
        state_id: str,
    ) -> None:
        super().__init__(state_id)
        self.pages = pages
        self._changed = changed
        self._features = F_STATS_VQ
        self._features |= F_DEFLATE_ON_OOM if deflate_on_oom else 0
        self._features |= F_REPORTING if reporting else 0
        self.state = _fresh(0)

    # ------------------------------------------------------------------- life

    def offered(self) -> int:
        """Return the feature bits."""
        return self._features

    def config(self) -> bytes:
        """Return the configuration space."""
        return _CONFIG.pack(self.state.target, self.state.actual, 0, 0)

    def write_config(self, offset: int, data: bytes) -> None:
        """Take how much the guest has given back; the rest is read-only."""
        if offset == _ACTUAL_OFFSET and len(data) == _WORD:
            self.state.actual = int.from_bytes(data, "little")
            self._changed()

    def reset(self) -> None:
        """Forget what the guest said; the target stays: it is the user's."""
        self.state = _fresh(self.state.target)

    def save_state(self) -> BalloonState:
        """Return the live state."""
        return self.state

    def load_state(self, state: BalloonState) -> None:
        """Go on from ``state``."""
        self.state = state

    # ------------------------------------------------------------------- the user's side

    def set_target(self, pages: int) -> None:
        """Ask the guest to give back ``pages`` (of 4 KiB) in all; lock held."""
        self.state.target = pages
        self.port.config_changed()

    def ask_stats(self) -> None:
        """Give the guest its buffer back, so that it fills in new statistics; lock held."""
        queue = self.port.queues[_STATS]
        if queue.state.ready:
            self.state.asked += 1
            self.port.run(self._return_stats, queue)

    # ------------------------------------------------------------------- queues

    def on_inflate(self, queue: Queue) -> None:
        """Free the pages whose numbers the guest sends."""
        for chain in queue.peek():
            for gpa, length in _runs(self._numbers(chain)):
                self.pages.give_back(gpa, length)
            queue.complete(chain, 0)

    def on_deflate(self, queue: Queue) -> None:
        """Let the guest have pages again: the host makes them when they are touched."""
        for chain in queue.peek():
            self._numbers(chain)
            queue.complete(chain, 0)

    def on_stats(self, queue: Queue) -> None:
        """Read the statistics; the buffer stays in the ring until new ones are wanted."""
        for chain in queue.peek():
            self._read_stats(chain)

    def on_reporting(self, queue: Queue) -> None:
        """Free pages that the guest does not use now; it takes them again without a word."""
        if not self.port.features & F_REPORTING:
            raise QueueError("pages reported, but reporting was not agreed on")
        for chain in queue.peek():
            for gpa, view in chain.writable:
                start = -(-gpa // _PAGE) * _PAGE
                end = (gpa + len(view)) // _PAGE * _PAGE
                if start < end:
                    self.pages.give_back(start, end - start)
            queue.complete(chain, 0)

    def _return_stats(self, queue: Queue) -> None:
        for chain in queue.peek():  # Linux tells of its first buffer before the device may look
            self._read_stats(chain)
            queue.complete(chain, 0)
            break
        queue.pending()  # asks for a kick at the next one

    def _read_stats(self, chain: Chain) -> None:
        if chain.size > MAX_STATS:
            raise QueueError(f"statistics of {chain.size} bytes, limit {MAX_STATS}")
        raw = chain.read(0, chain.size - chain.size % _STAT.size)
        for tag, value in _STAT.iter_unpack(raw):
            if tag < TAGS:
                self.state.stats[tag] = value

    def _numbers(self, chain: Chain) -> list[int]:
        """Return the page numbers in ``chain``.

        Raises:
            QueueError: they are no whole words, or too many.
        """
        if chain.size % _WORD or not 0 < chain.size <= MAX_PAGES * _WORD:
            raise QueueError(
                f"page numbers of {chain.size} bytes, 4 to {MAX_PAGES * _WORD} are allowed"
            )
        raw = memoryview(chain.read(0, chain.size))
        return [int.from_bytes(raw[n : n + _WORD], "little") for n in range(0, chain.size, _WORD)]


def _fresh(target: int) -> BalloonState:
    return BalloonState(target=target, stats=[UNKNOWN] * TAGS)


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return address and length of each run of pages that follow one another."""
    runs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        gpa = number << PAGE_SHIFT
        if runs and sum(runs[-1]) == gpa:
            runs[-1] = (runs[-1][0], runs[-1][1] + _PAGE)
        else:
            runs.append((gpa, _PAGE))
    return runs
