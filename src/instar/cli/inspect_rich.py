"""The report of ``instar inspect`` on a terminal; apart because rich is slow to import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from instar.cli.inspect_text import descriptor, headline, object_line, rows, shown

if TYPE_CHECKING:
    Report = dict[str, Any]


def show(report: Report, console: Console | None = None) -> None:
    """Print the report; what is damaged is red, what another version is needed for is yellow."""
    out = console or Console()
    out.print(Text(headline(report), style="bold"))
    for memory in report["memory"]:
        out.print(Text(f"memory {memory['name']}: {memory['size']} bytes"))
    for row in report["descriptors"]:
        out.print(Text(descriptor(row) if isinstance(row, dict) else shown(row)))  # pyright: ignore[reportUnknownArgumentType]
    for name, value in report["info"].items():
        out.print(Text(f"info {shown(name)}: {shown(value)}"))
    for made in report["objects"]:
        out.print()
        out.print(Text(object_line(made), style=f"bold {_color(report, made)}"))
        if made["problem"]:
            out.print(Text(f"! {made['problem']}", style=_color(report, made)))
        if made["fields"]:
            out.print(_table(made))


def _color(report: Report, made: Report) -> str:
    if made["reads"]:
        return "green"
    return "red" if made["problem"] in report["damage"] else "yellow"


def _table(made: Report) -> Table:
    table = Table(box=None, pad_edge=True, show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(style="dim")
    for name, value, doc in rows(made["fields"]):
        table.add_row(Text(name), Text(value), Text(doc))
    return table
