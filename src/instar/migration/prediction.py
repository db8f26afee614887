"""How long the guest will stand still: what the rehearsal measured, put right by how it was in updates before.

A rehearsal runs beside the guest, under filters, and begins in a process of its own; an update has the machine for
itself, but does more. What that comes to depends on the host, so it is learned from the update that this program came
out of. Not on the resume path. Source: own.
"""

from __future__ import annotations

from math import isqrt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.cpr.rehearsal import Answer
    from instar.migration.report import Report

EVEN: Final = 1000  # thousandths
_LOW, _HIGH = EVEN // 2, EVEN * 2  # one update on a busy host must not spoil all later predictions


def bias_after(last: Report | None) -> int:
    """Return what pauses were, in thousandths of what rehearsals measured: 500 to 2000, the mean of old and new.

    Args:
        last: The update before, as it crossed; None: there was none.
    """
    if last is None:
        return EVEN
    before = _limited(last.bias)
    if last.mode != "cpr-exec" or last.outcome != "completed":
        return before
    if last.away_ns <= 0 or last.parts_ns <= 0:
        return before
    return isqrt(before * _limited(EVEN * last.away_ns // last.parts_ns))


def predict(report: Report, save_ns: int, answer: Answer) -> int:
    """Return the pause to be expected, ns, and note what it is made of.

    Args:
        report: Of this update; has the bias.
        save_ns: How long saving took.
        answer: What the rehearsal measured.
    """
    report.parts_ns = save_ns + answer.pause_ns
    return max(report.parts_ns * report.bias // EVEN, answer.build_ns + answer.load_ns)


def _limited(value: int) -> int:
    return min(max(value, _LOW), _HIGH)
