"""The guest as seen from its serial console: what it prints, and a shell that answers questions."""

from __future__ import annotations

import itertools
import re
import time
from typing import TYPE_CHECKING

from demo_lib.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Callable

    from demo_lib.vm import Vm

BOOT = 180.0  # seconds
ANSWER = 60.0  # seconds
READY = "INIT READY"
# Whatever would steer a terminal: the guest is not trusted with ours.
_STEERING = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]|[^\t\n -~\xa0-\U0010ffff]")
_TICK = re.compile(r"(.*)tick (\d+)", re.DOTALL)
_LIMIT = 1 << 22  # bytes; a guest that prints more is not the one we started


class Console:
    """Collects what the guest prints.

    Args:
        on_line: Called with each complete line, without anything that steers a terminal.
        on_tick: Called with each number that the guest's counter prints.

    Attributes:
        text: Complete lines so far, the counter's apart.
        hidden: Do not report lines: the shell is being asked, which reads better without the marks around answers.
        ticks: The counter's numbers, with the host's time of their arrival (s).
    """

    def __init__(self, on_line: Callable[[str], object], on_tick: Callable[[int], object]) -> None:
        self._on_line = on_line
        self._on_tick = on_tick
        self._begun = b""  # a line that has no end yet
        self._taken = 0
        self.text = ""
        self.hidden = False
        self.ticks: list[tuple[int, float]] = []

    @property
    def prompt(self) -> str:
        """The line that has no end yet."""
        return _clean(self._begun)

    def take(self, data: bytes) -> None:
        """Take note of ``data``, which just arrived."""
        self._taken += len(data)
        if self._taken > _LIMIT:
            raise DemoError(f"the guest printed more than {_LIMIT >> 20} MiB")
        now = time.monotonic()
        *lines, self._begun = (self._begun + data).split(b"\n")
        before = ""  # of a line that the counter, in the background, wrote into
        for line in lines:
            text = before + _clean(line)
            if match := _TICK.fullmatch(text):
                before = match[1]
                self.ticks.append((int(match[2]), now))
                self._on_tick(int(match[2]))
            else:
                before = ""
                self.text += text + "\n"
                if not self.hidden:
                    self._on_line(text)
        self._begun = before.encode() + self._begun

    def missing(self) -> int:
        """Return how many numbers of the counter are not where they belong."""
        return sum(number != n for n, (number, _) in enumerate(self.ticks, 1))

    def longest_silence_ms(self) -> float:
        """Return the longest time between two numbers."""
        pairs = itertools.pairwise(at for _, at in self.ticks)
        return max((after - before for before, after in pairs), default=0.0) * 1000


class Shell:
    """The shell on the guest's console.

    Args:
        vm: Whose.
        console: What it prints to.
        on_line: Called with each command and each line of its answer.
    """

    def __init__(self, vm: Vm, console: Console, on_line: Callable[[str], object]) -> None:
        self._vm = vm
        self._console = console
        self._on_line = on_line
        self._asked = 0

    def wait_ready(self) -> None:
        """Wait until the guest has booted and prompts."""
        console = self._console
        self._vm.until(
            lambda: READY in console.text and console.prompt.endswith("# "),
            BOOT,
            "the guest's shell",
        )

    def ask(self, command: str) -> list[str]:
        """Type a command (a list of commands that ends in ``;`` or ``&``) and return the lines that it prints.

        Raises:
            DemoError: no answer.
        """
        self._asked += 1
        n = self._asked
        begin, end = f"<{n}\n", f"\n{n}>\n"  # not as typed: the echo must not pass for the answer
        start = len(self._console.text)
        self._on_line(f"# {command}")
        self._console.hidden = True
        self._vm.type(f'echo "<$(({n}))"; {{ {command} }}; echo; echo "$(({n}))>"\n')
        self._vm.until(
            lambda: end in self._console.text[start:], ANSWER, f"the guest's answer to '{command}'"
        )
        self._console.hidden = False
        answer = self._console.text[start:].partition(begin)[2].partition(end)[0]
        lines = [line for line in answer.split("\n") if line]
        for line in lines:
            self._on_line(line)
        return lines

    def wait_ticks(self, count: int) -> None:
        """Listen until the guest's counter has gone on by ``count``."""
        want = len(self._console.ticks) + count
        self._vm.until(
            lambda: len(self._console.ticks) >= want, ANSWER, "the guest's counter to go on"
        )


def _clean(line: bytes) -> str:
    return _STEERING.sub("", line.decode("utf-8", "replace"))
