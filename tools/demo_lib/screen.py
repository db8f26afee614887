"""What the demo shows: in a pipe plain lines, for machines JSON; :mod:`demo_lib.terminal` is for people."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Protocol, TextIO

from demo_lib.facts import PAUSED

if TYPE_CHECKING:
    from demo_lib.errors import DemoError
    from demo_lib.facts import Summary, Update


class Screen(Protocol):
    """Somewhere to show the demo."""

    def step(self, text: str) -> None:
        """Say what happens now."""

    def guest(self, line: str) -> None:
        """Show a line of the guest's console."""

    def tick(self, number: int) -> None:
        """Show how far the guest's counter is."""

    def update(self, update: Update) -> None:
        """Show an update that is done."""

    def summary(self, summary: Summary) -> None:
        """Show how it ended."""

    def failed(self, error: DemoError) -> None:
        """Show why it did not go on."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class PlainScreen:
    """Lines of text.

    Args:
        out: Where to.
        err: Where failures go.
    """

    def __init__(self, out: TextIO = sys.stdout, err: TextIO = sys.stderr) -> None:
        self._out = out
        self._err = err

    def step(self, text: str) -> None:
        """Say what happens now."""
        self._print(f"== {text}")

    def guest(self, line: str) -> None:
        """Show a line of the guest's console."""
        self._print(f"   | {line}")

    def tick(self, number: int) -> None:
        """Show nothing: the counter would only fill the pipe."""

    def update(self, update: Update) -> None:
        """Show an update that is done."""
        self._print("\n".join(f"   {line}" for line in update_lines(update)))

    def summary(self, summary: Summary) -> None:
        """Show how it ended."""
        self._print("\n".join(f"   {line}" for line in summary_lines(summary)))

    def failed(self, error: DemoError) -> None:
        """Show why it did not go on, and what helps."""
        print(f"demo: {error}", file=self._err)
        if error.hint:
            print(f"hint: {error.hint}", file=self._err)

    def close(self) -> None:
        """Nothing was changed."""

    def _print(self, text: str) -> None:
        print(text, file=self._out, flush=True)


class JsonScreen(PlainScreen):
    """One JSON object a line; failures also in words, on standard error."""

    def step(self, text: str) -> None:
        """Say what happens now."""
        self._print(json.dumps({"event": "step", "text": text}))

    def guest(self, line: str) -> None:
        """Show nothing: machines look at facts."""

    def update(self, update: Update) -> None:
        """Show an update that is done."""
        self._print(json.dumps(update.record()))

    def summary(self, summary: Summary) -> None:
        """Show how it ended."""
        self._print(json.dumps(summary.record()))

    def failed(self, error: DemoError) -> None:
        """Show why it did not go on."""
        self._print(json.dumps({"event": "failed", "error": str(error), "hint": error.hint}))
        super().failed(error)


def milliseconds(us: int) -> str:
    """Return a time as people read it."""
    return f"{us / 1000:.1f} ms"


def update_lines(update: Update) -> list[str]:
    """Return an update in words."""
    paused = [(name, us) for name, us in update.phases if name in PAUSED]
    running = [(name, us) for name, us in update.phases if name not in PAUSED]
    same = "same process" if update.pid_before == update.pid_after else "ANOTHER PROCESS"
    return [
        f"Instar {update.old_version} -> {update.new_version}",
        f"PID {update.pid_before} -> {update.pid_after} ({same})",
        f"the guest stood still for {milliseconds(update.pause_us)}: "
        + ", ".join(f"{name} {us / 1000:.1f}" for name, us in paused),
        *(f"while it still ran: {name} {milliseconds(us)}" for name, us in running),
    ]


def summary_lines(summary: Summary) -> list[str]:
    """Return the end in words."""
    kernel = "no complaint" if not summary.complaints else "; ".join(summary.complaints)
    missing = summary.ticks_missing or "none"
    wrong = summary.checksums_wrong or "none"
    shell = "still there" if summary.shell_kept else "LOST"
    return [
        f"its counter: 1 to {summary.ticks}, {missing} missing, longest silence {summary.longest_silence_ms} ms",
        f"its disk: read to the end {summary.checksums} times meanwhile, {wrong} of the checksums wrong",
        f"its shell's variable: {shell}; its kernel: {kernel}",
        f"the monitor: {summary.connections} connection, {summary.updates} updates; exit status {summary.exit_status}",
        f"{summary.boot_s:.1f} s to the guest's shell, {summary.total_s:.1f} s in all",
    ]
