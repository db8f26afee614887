"""One run of a monitor, watched: when its console says something, what memory and processor time it took."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from typing import NamedTuple

PATIENCE = 300.0  # seconds for one run; a noisy machine takes minutes, a hanging guest for ever
TAIL = 400  # characters of the console shown when a run fails


class RunFailedError(Exception):
    """A run ended or hung before its console said what was waited for."""


class Mark(NamedTuple):
    """A moment of a run.

    Attributes:
        at_s: Seconds since the process was started.
        peak_kib: Largest resident memory so far, KiB.
        cpu_s: Processor time of the process so far, all threads, seconds.
    """

    at_s: float
    peak_kib: int
    cpu_s: float


class Run:
    """A started monitor with its serial line; use it in a ``with`` block, which ends the process.

    Args:
        command: The program and its options, with ``-serial stdio``.
        environment: Of the process.
    """

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._command = command
        self._console = ""
        self._started = time.perf_counter()
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def until(self, text: str) -> Mark:
        """Wait until the console says ``text`` (after what was waited for before) and return that moment.

        Raises:
            RunFailedError: the run ended, or took longer than 300 s.
        """
        while text not in self._console:
            self._console += self._read(text)
        self._console = self._console.partition(text)[2]
        return self.mark()

    def finished(self) -> float:
        """Wait for the end of the process and return the seconds since its start.

        Raises:
            RunFailedError: it took longer than 300 s.
        """
        try:
            self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired as exc:
            raise RunFailedError(
                f"{self._command[0]} did not end within {PATIENCE:.0f} s"
            ) from exc
        return time.perf_counter() - self._started

    def mark(self) -> Mark:
        """Return this moment."""
        at = time.perf_counter() - self._started
        pid = self._process.pid
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as stream:
            rows = dict(line.split(":", 1) for line in stream)
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return Mark(at, int(rows["VmHWM"].split()[0]), ticks / os.sysconf("SC_CLK_TCK"))

    def _read(self, text: str) -> str:
        left = PATIENCE - (time.perf_counter() - self._started)
        chunk = self._chunk(left) if left > 0 else b""
        if not chunk:
            how = "hung" if left <= 0 else "ended"
            shown = f"{' '.join(self._command[:1])} {how} before it said {text!r}; its console ends with"
            raise RunFailedError(f"{shown}:\n{self._console[-TAIL:]}")
        return chunk.decode(errors="replace")

    def _chunk(self, patience: float) -> bytes:
        """Return the next bytes of the console; empty at the end or when patience ran out."""
        output = self._process.stdout
        if output is None:
            return b""
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            return os.read(output.fileno(), 65536) if selector.select(patience) else b""
