"""The old program's side of a machine's rehearsal: a child of :mod:`instar.cpr.rehearsal`, watched by the main loop.

It gets memory and disks for reading only. Not on the resume path. Source: own; docs/decisions/0008.
"""

from __future__ import annotations

from instar.cpr.rehearsal import Child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from instar.cpr.fds import Fds
    from instar.cpr.rehearsal import Answer
    from instar.cpr.state import Record
    from instar.cpr.target import Target
    from instar.loop import Loop

LIMIT_NS: Final = 30_000_000_000
_READ_ONLY: Final = ("memory", "block")  # kinds of descriptors


class Rehearsal:
    """One rehearsal; make one, then :meth:`start`.

    Args:
        loop: The main loop.
        target: What to execute.
        argv: Its arguments.
        on_answer: Called once with the answer, from the main loop.
    """

    def __init__(
        self, loop: Loop, target: Target, argv: list[str], on_answer: Callable[[Answer], object]
    ) -> None:
        self._loop = loop
        self._target = target
        self._argv = argv
        self._on_answer = on_answer
        self._child = Child()
        self._timer = loop.call_later(LIMIT_NS, lambda: self._finish(LIMIT_NS))

    def start(self, fds: Fds, info: Record) -> None:
        """Start the child.

        Args:
            fds: A table of its own, with everything that an update would hand over.
            info: As an update would tell.

        Raises:
            CprError, OSError: It cannot be started; nothing is left behind.
        """
        try:
            self._child = Child.start(self._target, self._argv, (fds, info), _READ_ONLY)
        except BaseException:
            self._timer.cancel()
            raise
        self._loop.watch(self._child.pipe, readable=self._read)

    def stop(self) -> None:
        """End the child, if there still is one; again is fine."""
        self._timer.cancel()
        if self._child.pipe >= 0:
            self._loop.unwatch(self._child.pipe)
        self._child.stop()

    def _read(self) -> None:
        if self._child.take():
            self._finish()

    def _finish(self, late_ns: int = 0) -> None:
        self._timer.cancel()
        self._loop.unwatch(self._child.pipe)
        self._on_answer(self._child.finish(late_ns))
