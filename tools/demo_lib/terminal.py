"""The demo for people: colours, the guest's console dimmed, its counter in the last line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.bar import Bar
from rich.console import Console
from rich.panel import Panel
from rich.status import Status
from rich.table import Table
from rich.text import Text

from demo_lib.facts import PAUSED
from demo_lib.screen import milliseconds, summary_lines

if TYPE_CHECKING:
    from demo_lib.errors import DemoError
    from demo_lib.facts import Summary, Update

_BAR = 32  # columns


class TerminalScreen:
    """Draws on the terminal that standard output is."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._status = Status("", console=self._console, refresh_per_second=5)

    def step(self, text: str) -> None:
        """Say what happens now."""
        self._console.print(Text.assemble(("==> ", "bold cyan"), (text, "bold")))

    def guest(self, line: str) -> None:
        """Show a line of the guest's console."""
        self._console.print(Text(f"  │ {line}", style="dim"), overflow="ellipsis", no_wrap=True)

    def tick(self, number: int) -> None:
        """Show how far the guest's counter is."""
        self._status.update(Text(f"the guest counts: {number}", style="green"))
        self._status.start()

    def update(self, update: Update) -> None:
        """Show an update that is done."""
        table = Table.grid(padding=(0, 2))
        table.add_row(
            "version", Text(f"{update.old_version} → {update.new_version}", "bold green")
        )
        same = "the same process" if update.pid_before == update.pid_after else "ANOTHER PROCESS"
        table.add_row("PID", f"{update.pid_before} → {update.pid_after}  ({same})")
        table.add_row("pause", Text(milliseconds(update.pause_us), "bold yellow"))
        longest = max((us for name, us in update.phases if name in PAUSED), default=1) or 1
        for name, us in update.phases:
            if name in PAUSED:
                bar = Bar(longest, 0, us, width=_BAR, color="yellow")
                table.add_row(Text(f"  {name}", "dim"), f"{us / 1000:7.1f} ms", bar)
            else:
                table.add_row(
                    Text(f"  {name}", "dim"), f"{us / 1000:7.1f} ms", Text("guest runs", "dim")
                )
        self._console.print(
            Panel(table, title=f"update {update.number}", title_align="left", expand=False)
        )

    def summary(self, summary: Summary) -> None:
        """Show how it ended."""
        self._status.stop()
        good = not summary.faults()
        body = Text("\n".join(summary_lines(summary)))
        self._console.print(
            Panel(
                body,
                title="what the guest noticed",
                title_align="left",
                border_style="green" if good else "red",
                expand=False,
            )
        )

    def failed(self, error: DemoError) -> None:
        """Show why it did not go on, and what helps."""
        self._status.stop()
        to = Console(stderr=True, highlight=False)
        to.print(Text.assemble(("demo: ", "bold red"), str(error)))
        if error.hint:
            to.print(Text(f"hint: {error.hint}"))

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._status.stop()
