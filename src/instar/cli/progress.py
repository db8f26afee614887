"""Say how far something is: a moving bar on a terminal, plain lines in a pipe, JSON lines on request.

Source: own; the bar is rich's.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from types import TracebackType

STEP = 25.0  # per cent between two plain lines of one phase


class Reporter(Protocol):
    """Something that can be told of progress, inside a ``with`` block."""

    def __enter__(self) -> Reporter: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def __call__(self, phase: str, percent: float) -> None:
        """Take note that ``phase`` is ``percent`` done (0 to 100)."""


class LineReporter:
    """Writes a line when a phase begins and at every quarter of it.

    Args:
        stream: Where to.
        as_json: One JSON object a line instead of text.
    """

    def __init__(self, stream: TextIO, *, as_json: bool) -> None:
        self._stream = stream
        self._as_json = as_json
        self._last = ("", 0.0)

    def __enter__(self) -> LineReporter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    def __call__(self, phase: str, percent: float) -> None:
        """Take note that ``phase`` is ``percent`` done (0 to 100)."""
        name, shown = self._last
        if phase == name and percent < shown + STEP:
            return
        self._last = (phase, percent - percent % STEP)
        if self._as_json:
            text = json.dumps({"event": "progress", "phase": phase, "percent": round(percent, 1)})
        else:
            text = phase if percent < STEP else f"{phase}: {percent:.0f}%"
        self._stream.write(text + "\n")
        self._stream.flush()


def reporter(*, as_json: bool) -> Reporter:
    """Return the reporter that fits: JSON on standard output, else for people on standard error."""
    if as_json:
        return LineReporter(sys.stdout, as_json=True)
    if sys.stderr.isatty():
        from instar.cli.bar import BarReporter  # noqa: PLC0415  # rich costs 60 ms; pipes and scripts do without

        return BarReporter()
    return LineReporter(sys.stderr, as_json=False)
