"""Threads that keep moments: of a guest's console, and of its counter as another program sees it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time

from bench_run import RunFailedError
from update_stats import Gap

_OUTSIDE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "update_outside.py")
_KEPT = 4000  # characters of the console, for complaints


class Console:
    """Reads a pipe into which monitors write their guest's console.

    Args:
        output: The pipe's end for reading; closed at its end.
    """

    def __init__(self, output: int) -> None:
        self.moments: list[int] = []  # host monotonic nanoseconds at which something came
        self.tail = b""
        self._counting = b""
        self._output = output
        self._news = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def page_number(self, process: subprocess.Popen[bytes], patience_s: float) -> int:
        """Wait until the guest says where its page is.

        Raises:
            RunFailedError: the process ended, or that took too long.
        """
        deadline = time.monotonic() + patience_s
        while not self._counting:
            ended = process.poll() is not None
            if ended or time.monotonic() > deadline:
                how = "ended" if ended else f"did not count within {patience_s:.0f} s"
                tail = self.tail.decode(errors="replace")
                raise RunFailedError(f"the guest {how}; its console ends with:\n{tail[-400:]}")
            self._news.wait(0.1)
        return int(self._counting)

    def _run(self) -> None:
        while data := os.read(self._output, 65536):
            self.moments.append(time.monotonic_ns())
            self.tail = (self.tail + data)[-_KEPT:]
            if not self._counting and (found := re.search(rb"COUNTING (\d+)\r?\n", self.tail)):
                self._counting = found[1]
                self._news.set()
        os.close(self._output)


class Watcher:
    """The program that looks at the counter, and what it has said.

    Args:
        memory: Descriptor of the guest's memory.
        offset: Of the page in it.
    """

    def __init__(self, memory: int, offset: int) -> None:
        self.gaps: list[Gap] = []
        self.counts: list[tuple[int, int]] = []  # moment, value
        self._process = subprocess.Popen(
            [sys.executable, "-S", _OUTSIDE, str(memory), str(offset)],
            stdout=subprocess.PIPE,
            pass_fds=[memory],
        )
        self.pid = self._process.pid
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._thread.join()

    def _run(self) -> None:
        if self._process.stdout is None:
            return
        with self._process.stdout as lines:
            for line in lines:
                kind, *numbers = line.split()
                values = [int(number) for number in numbers]
                if kind == b"gap":
                    self.gaps.append(Gap(*values))
                else:
                    self.counts.append((values[0], values[1]))
