"""What the moments of an update say: gaps, medians, ratios. Nothing here measures."""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


LEAST = 0.05  # milliseconds or MiB: ratios to less say nothing


BRIDGE = "cpr-exec+bridge"


class Gap(NamedTuple):
    """A time in which a counter stood still, host monotonic nanoseconds.

    Attributes:
        before: Last look that found it moving.
        after: First look that found it moving again.
        sure: For how long looks in between found it standing.
    """

    before: int
    after: int
    sure: int

    @property
    def length(self) -> int:
        """At most so long."""
        return self.after - self.before


class Case(NamedTuple):
    """What is measured.

    Attributes:
        memory: Of the guest, MiB.
        state: "untouched", "touched" (the guest writes to all its memory, before and on and on) or "prealloc" (the
            monitor touches it: ``prealloc=on``).
        mode: "cpr-exec", "cpr-transfer", or ``BRIDGE``: cpr-exec of a guest that leaves its devices alone, which Instar
            does with a bridge.
    """

    memory: int
    state: str
    mode: str

    @property
    def name(self) -> str:
        """For people."""
        amount = f"{self.memory // 1024} GiB" if self.memory % 1024 == 0 else f"{self.memory} MiB"
        return f"{self.mode}, {amount} {self.state}"


class Summary(NamedTuple):
    """A series in three numbers; p99 of fewer than 100 values is their largest."""

    median: float
    p99: float
    runs: int


def summary(values: Sequence[float]) -> Summary | None:
    """Return median and p99 (nearest rank); None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    rank = math.ceil(0.99 * len(ordered)) - 1
    return Summary(statistics.median(ordered), ordered[rank], len(ordered))


def ratio(own: Summary | None, other: Summary | None) -> float | None:
    """Return the ratio of the medians, None if there is none or the other is next to nothing."""
    if own is None or other is None or other.median < LEAST:
        return None
    return own.median / other.median


def longest_between(moments: Sequence[int], begin: int, end: int) -> int | None:
    """Return the longest time between two neighbours of ``moments`` (ascending) that touches ``begin`` to ``end``.

    None if there is no moment before or none after: what was going on has not been seen to go on.
    """
    first = bisect.bisect_right(moments, begin) - 1
    last = bisect.bisect_left(moments, end)
    if first < 0 or last >= len(moments):
        return None
    part = moments[first : last + 1]
    return max((b - a for a, b in itertools.pairwise(part)), default=0)


def pause(gaps: Iterable[Gap], begin: int, end: int) -> Gap | None:
    """Return the longest of the gaps that touch ``begin`` to ``end``, None if the counter never stood still then."""
    touching = [gap for gap in gaps if gap.before <= end and gap.after >= begin]
    return max(touching, key=lambda gap: gap.length, default=None)


def at_ends(gaps: Sequence[Gap], begin: int, end: int, slack: int) -> int:
    """Return for how long the counter stood still at ``begin`` and at ``end``, together.

    Args:
        gaps: All that were seen.
        begin, end: Moments.
        slack: A gap that is so near (nanoseconds) is one at that moment.
    """
    found = {pause(gaps, moment - slack, moment + slack) for moment in (begin, end)}
    return sum(gap.length for gap in found if gap is not None)


def stall(gaps: Iterable[Gap], begin: int, end: int) -> int:
    """Return the longest time for which looks found the counter standing, of gaps that lie in ``begin`` to ``end``."""
    return max((gap.sure for gap in gaps if gap.before >= begin and gap.after <= end), default=0)


def counted(counts: Sequence[tuple[int, int]], begin: int, end: int) -> int | None:
    """Return how far a counter went between the reports (time, value) nearest inside ``begin`` to ``end``."""
    inside = [value for at, value in counts if begin <= at <= end]
    return inside[-1] - inside[0] if len(inside) > 1 else None
