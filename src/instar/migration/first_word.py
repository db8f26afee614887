"""Wait in the main loop until a helper that was just started says something, or for so long.

Not on the resume path. Source: own.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from instar.loop import Loop


def await_first_word(loop: Loop, fd: int, limit_ns: int, go_on: Callable[[], object]) -> None:
    """Call ``go_on`` once: when ``fd`` can be read, or after ``limit_ns``; what was said is left for it to read."""

    def said() -> None:
        timer.cancel()
        loop.unwatch(fd)
        go_on()

    timer = loop.call_later(limit_ns, said)
    loop.watch(fd, readable=said)
