"""What was measured by ``make bench-update``, kept, as tables and as JSON. Nothing here measures."""

from __future__ import annotations

import json
import os
import platform
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.table import Table
from update_stats import BRIDGE, Case, Summary, ratio, summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

SIDES = ("instar", "qemu")
MARKS = (
    "<!-- BENCH-UPDATE: made by make bench-update PUBLISH=1 -->",
    "<!-- BENCH-UPDATE ends -->",
)
PAUSED = (
    "stop",
    "save",
    "exec",
    "build",
    "load",
    "resume",
)  # Instar's phases in which the guest stands still


class Figure(NamedTuple):
    """What is measured of an update.

    Attributes:
        title: As in the table.
        unit: Of a value.
    """

    title: str
    unit: str


FIGURES = {
    "pause": Figure("pause: counter in guest memory", "ms"),
    "longest": Figure("longest stall meanwhile", "ms"),
    "console": Figure("gap on the console", "ms"),
    "ping": Figure("gap of a ping", "ms"),
    "brown": Figure("longest stall afterwards", "ms"),
    "before": Figure("longest stall in 1 s before", "ms"),
    "events": Figure("STOP to RESUME", "ms"),
    "downtime": Figure("query-migrate's pause", "ms"),
    "cpu": Figure("processor time", "ms"),
    "peak": Figure("memory at the peak", "MiB"),
    "held": Figure("memory held afterwards", "MiB"),
}


class Goal(NamedTuple):
    """What the project wants of a ratio to QEMU.

    Attributes:
        of: Whether it is about a case.
        figure: Its name in ``FIGURES``.
        ratio: At most.
    """

    of: Callable[[Case], bool]
    figure: str
    ratio: float


GOALS = [
    Goal(Case(1024, "untouched", "cpr-exec").__eq__, "pause", 0.5),
    Goal(Case(8192, "touched", "cpr-exec").__eq__, "pause", 0.15),
    Goal(Case(8192, "prealloc", "cpr-exec").__eq__, "pause", 0.02),
    Goal(lambda case: case.mode == BRIDGE, "pause", 0.1),
    Goal(lambda case: case.mode == "cpr-transfer", "events", 1.0),
]
GOAL_CASES = [  # the fewest that say something about each of them
    Case(1024, "untouched", "cpr-exec"),
    Case(1024, "untouched", BRIDGE),
    Case(1024, "untouched", "cpr-transfer"),
    Case(256, "touched", "cpr-exec"),
    Case(8192, "touched", "cpr-exec"),
    Case(8192, "prealloc", "cpr-exec"),
]
BRIDGE_MEDIAN, BRIDGE_P99 = 5.0, 15.0  # ms, of Instar's own
GROWTH, GROWTH_LIMIT = (256, 8192), 1.2  # MiB; touched, cpr-exec


class Series:
    """All values of a run.

    Attributes:
        cases: Case to side to figure to its values.
        floor: MiB mapped (0: of a fork, too) to milliseconds that an exec of a bare C program took.
        about: What it was measured on and with: text to text.
        load: The machine's load averages of a minute, as they were.
        failures: What could not be measured, and why.
    """

    def __init__(self, about: dict[str, str]) -> None:
        self.about = about
        self.cases: dict[Case, dict[str, dict[str, list[float]]]] = {}
        self.floor: dict[int, list[float]] = {}
        self.load: list[float] = []
        self.failures: list[str] = []

    def add(self, side: str, case: Case, values: dict[str, float]) -> None:
        """Keep the values of one update."""
        figures = self.cases.setdefault(case, {}).setdefault(side, {})
        for name, value in values.items():
            figures.setdefault(name, []).append(value)
        if "pause" in values and "downtime" in values:
            figures.setdefault("differ", []).append(values["pause"] - values["downtime"])


class Row(NamedTuple):
    """One line of the table; None: not measured, or not told by that monitor."""

    case: Case
    figure: str
    instar: Summary | None
    qemu: Summary | None
    ratio: float | None


def rows(series: Series) -> list[Row]:
    """Return the lines of the table; figures of which nobody has values are left out."""
    found: list[Row] = []
    for case, sides in series.cases.items():
        for figure in FIGURES:
            own, other = (summary(sides.get(side, {}).get(figure, [])) for side in SIDES)
            if own or other:
                found.append(Row(case, figure, own, other, ratio(own, other)))
    return found


def table(series: Series) -> Table:
    """Return what people read."""
    shown = Table(title="An update, from outside: median and p99", title_justify="left")
    for column in ("", "Instar", "p99", "QEMU", "p99", "ratio"):
        shown.add_column(column, justify="right" if column else "left", no_wrap=True)
    last: Case | None = None
    for row in rows(series):
        if row.case != last:
            shown.add_section()
            shown.add_row(f"[bold]{row.case.name}[/bold]")
            last = row.case
        figure = FIGURES[row.figure]
        cells = [*_cells(row.instar), *_cells(row.qemu)]
        cells.append("" if row.ratio is None else f"{row.ratio:.2f}")
        shown.add_row(f"  {figure.title}, {figure.unit}", *cells)
    return shown


def _cells(found: Summary | None) -> list[str]:
    return [f"{found.median:.2f}", f"{found.p99:.2f}"] if found else ["-", "-"]


def notes(series: Series) -> list[str]:
    """Return the sentences below the table."""
    said = [*about(series), *(f"not measured: {why}" for why in series.failures), *phases(series)]
    for case, sides in series.cases.items():
        for side, figures in sides.items():
            differ = summary([abs(value) for value in figures.get("differ", [])])
            if differ:
                said.append(
                    f"{case.name}, {side}: the outside view and query-migrate differ by {differ.median:.2f} ms,"
                    f" p99 {differ.p99:.2f}"
                )
    return said


def phases(series: Series) -> list[str]:
    """Return where the time of Instar's pauses goes, medians: a sentence a case."""
    said: list[str] = []
    for case, sides in series.cases.items():
        figures = sides.get("instar", {})
        parts = [("before it is noted", "lead")]
        parts += [(name, f"phase_{name}") for name in PAUSED]
        parts.append(("until the guest counts again", "trail"))
        found = [(name, summary(figures.get(key, []))) for name, key in parts]
        shown = [f"{name} {part.median:.1f}" for name, part in found if part]
        if shown:
            said.append(f"{case.name}, instar, ms: {', '.join(shown)}")
    return said


def markdown(series: Series) -> str:
    """Return the pauses as a table for a document, and what it was measured on."""
    lines = [
        "| the guest stands still, median / p99 | Instar | QEMU | ratio |",
        "|---|---|---|---|",
    ]
    for row in rows(series):
        if row.figure == "pause":
            both = [
                f"{side.median:.1f} / {side.p99:.1f} ms" if side else "-"
                for side in (row.instar, row.qemu)
            ]
            shown = "-" if row.ratio is None else f"{row.ratio:.2f}"
            lines.append(f"| {row.case.name} | {both[0]} | {both[1]} | {shown} |")
    return "\n".join([*lines, "", *(f"{line}  " for line in [*about(series), *goals(series)])])


def about(series: Series) -> list[str]:
    """Return what was measured, on what, and the floor."""
    said = [f"{name}: {text}" for name, text in series.about.items()]
    if series.load:
        runs = max(
            len(side.get("pause", [])) for case in series.cases.values() for side in case.values()
        )
        load = f"{min(series.load):.1f} to {max(series.load):.1f}"
        said.append(f"{runs} updates each; {os.cpu_count()} cores; load of the machine: {load}")
    for memory, values in series.floor.items():
        what = f"exec with {memory} MiB mapped and touched" if memory else "fork and exec"
        if found := summary(values):
            said.append(f"a bare C program, {what}: {found.median:.2f} ms, p99 {found.p99:.2f}")
    return said


def goals(series: Series) -> list[str]:
    """Return the sentences about what the project wants, for the cases that were measured."""
    said: list[str] = []
    medians = {
        (row.case, row.figure): row.instar.median for row in rows(series) if row.instar is not None
    }
    for goal in GOALS:
        found = [row for row in rows(series) if row.figure == goal.figure and goal.of(row.case)]
        said += [
            _judged(
                f"{row.case.name}, {FIGURES[goal.figure].title}",
                row.ratio,
                goal.ratio,
                "of QEMU's",
            )
            for row in found
            if row.ratio is not None
        ]
    for row in rows(series):
        if row.case.mode == BRIDGE and row.figure == "pause" and row.instar:
            said.append(
                _judged(f"{row.case.name}, median", row.instar.median, BRIDGE_MEDIAN, "ms")
            )
            said.append(_judged(f"{row.case.name}, p99", row.instar.p99, BRIDGE_P99, "ms"))
    small, large = (medians.get((Case(size, "touched", "cpr-exec"), "pause")) for size in GROWTH)
    if small and large:
        name = f"cpr-exec touched, {GROWTH[1]} MiB against {GROWTH[0]} MiB"
        said.append(_judged(name, large / small, GROWTH_LIMIT, "times"))
    return said


def _judged(name: str, value: float, limit: float, unit: str) -> str:
    kept = "yes" if value <= limit else "no"
    # A hundredth is half of some limits.
    shown = f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
    return f"goal, {name}: {shown}, at most {limit} {unit}: {kept}"


def document(series: Series) -> dict[str, Any]:
    """Return what is written as JSON: the summary, and every value."""
    return {
        "about": {**series.about, "machine": platform.platform(), "cores": str(os.cpu_count())},
        "load": series.load,
        "units": {name: figure.unit for name, figure in FIGURES.items()},
        "failures": series.failures,
        "floor_ms": {str(memory): values for memory, values in series.floor.items()},
        "summary": [
            {
                **row.case._asdict(),
                "figure": row.figure,
                "instar": row.instar and row.instar._asdict(),
                "qemu": row.qemu and row.qemu._asdict(),
                "ratio": row.ratio,
            }
            for row in rows(series)
        ],
        "series": [{**case._asdict(), **sides} for case, sides in series.cases.items()],
    }


def save(path: str, content: dict[str, Any]) -> None:
    """Write it; what was there is replaced whole."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(f"{path}.new", "w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1)
        stream.write("\n")
    os.replace(f"{path}.new", path)


def between_marks(text: str, content: str) -> str:
    """Return a document with what is between its two lines that mark our place replaced.

    Raises:
        ValueError: it has no such lines.
    """
    begin, end = (text.index(mark) for mark in MARKS)
    return f"{text[: begin + len(MARKS[0])]}\n{content}\n{text[end:]}"


def of_figure(found: Iterable[Row], figure: str) -> Sequence[Row]:
    """Return the lines of one figure."""
    return [row for row in found if row.figure == figure]
