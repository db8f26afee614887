"""The host side as a device sees it: what its constructor takes besides its state.

Every handle is called with the machine lock held, from the vCPU thread or the main thread.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class IrqLine(Protocol):
        """The wire to the interrupt controller."""

        def set(self, level: bool, /) -> None:  # noqa: FBT001 - the contract of an interrupt line
            """Drive the line; driving the same level again does nothing."""
            ...

    class RtcClock(Protocol):
        """The wall clock as `-rtc` says."""

        def rtc_ns(self) -> int:
            """Return nanoseconds since 1970."""
            ...

    class Timer(Protocol):
        """A call that was asked for."""

        def cancel(self) -> None:
            """Forget it; doing so twice, or after it ran, does nothing."""
            ...

    class Timers(Protocol):
        """Calls later, with the machine lock held; kept while the VM is stopped."""

        def call_later(self, delay_ns: int, callback: Callable[[], object], /) -> Timer:
            """Call once, ``delay_ns`` from now."""
            ...

    class SerialChardev(Protocol):
        """What a serial port needs of a chardev (``instar.chardev.Chardev``)."""

        def attach(
            self,
            *,
            receive: Callable[[bytes], None],
            can_receive: Callable[[], int],
            event: Callable[[str], None],
        ) -> None:
            """Become its front end."""
            ...

        def write(self, data: bytes, /) -> None:
            """Send; never blocks, never loses."""
            ...

        def pending(self) -> int:
            """Return how many bytes wait for the host."""
            ...

        def accept_input(self) -> None:
            """Say that there is room again."""
            ...
