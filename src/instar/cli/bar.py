"""The moving bar of :mod:`instar.cli.progress`; apart because rich is slow to import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

if TYPE_CHECKING:
    from types import TracebackType


class BarReporter:
    """Draws one bar a phase on standard error."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<40}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> BarReporter:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._finish()
        self._progress.stop()

    def __call__(self, phase: str, percent: float) -> None:
        """Take note that ``phase`` is ``percent`` done (0 to 100); the phases before it are then done."""
        if phase not in self._tasks:
            self._finish()
            self._tasks[phase] = self._progress.add_task(phase, total=100.0)
        self._progress.update(self._tasks[phase], completed=percent)

    def _finish(self) -> None:
        for task in self._tasks.values():
            self._progress.update(task, completed=100.0)
