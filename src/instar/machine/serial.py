"""The line between a device in the vCPU thread and a character device in the main loop.

A device writes at any time with the machine lock held; the character device belongs to the main thread. What is
written is kept here and handed over in the main loop, in order; nothing is lost.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from instar.loop import Timer
    from instar.machine.machine import Machine

    class Line(Protocol):
        """A character device."""

        def attach(
            self,
            *,
            receive: Callable[[bytes], object],
            can_receive: Callable[[], int],
            event: Callable[[str], object],
        ) -> None:
            """Connect a front end."""
            ...

        def write(self, data: bytes, /) -> None:
            """Send, or keep what cannot be sent now."""
            ...

        def pending(self) -> int:
            """Return the number of bytes kept."""
            ...

        def accept_input(self) -> None:
            """Learn that the front end has room again."""
            ...

    class ConnectedLine(Line, Protocol):
        """A character device that says whether somebody is at its other end."""

        @property
        def connected(self) -> bool:
            """Whether somebody is there."""
            ...

        def terminal_size(self) -> tuple[int, int]:
            """Return columns and rows of the terminal there, (0, 0) if that is not known."""
            ...

        def follow_size(self) -> None:
            """Begin to find out the size and to tell of changes."""
            ...


class SerialLine:
    """A character device as a device may use it: any thread, machine lock held.

    Args:
        machine: Whose lock and loop are used.
        chardev: The other end; None: bytes written go nowhere, and none ever come.
        hold: Report unsent bytes to the device, so that it makes the guest wait. Off under an instruction-count clock,
            where the guest must not notice how fast the host's reader is.
    """

    __slots__ = ("_chardev", "_event", "_hold", "_machine", "_out", "_scheduled")

    def __init__(self, machine: Machine, chardev: Line | None, *, hold: bool) -> None:
        self._machine = machine
        self._chardev = chardev
        self._hold = hold
        self._out = bytearray()
        self._scheduled = False
        self._event: Callable[[str], object] = _nobody

    def attach(
        self,
        *,
        receive: Callable[[bytes], object],
        can_receive: Callable[[], int],
        event: Callable[[str], object],
    ) -> None:
        """Connect the device; its callbacks are called in the main thread with the lock held."""
        if self._chardev is None:
            return
        self._event = event
        locked = self._machine.locked
        lock = self._machine.lock

        def room() -> int:
            with lock:
                return can_receive()

        self._chardev.attach(
            receive=lambda data: locked(lambda: receive(data)),
            can_receive=room,
            event=lambda name: locked(lambda: event(name)),
        )

    def write(self, data: bytes) -> None:
        """Send ``data``, in order, without waiting."""
        if self._chardev is None:
            return
        self._out += data
        if not self._scheduled:
            self._scheduled = True
            self._machine.post(self.drain)

    def pending(self) -> int:
        """Return how many bytes the device should take for unsent."""
        if self._chardev is None or not self._hold:
            return 0
        return len(self._out) + self._chardev.pending()

    def accept_input(self) -> None:
        """Tell the other end that the device has room again."""
        if self._chardev is not None:
            self._machine.loop.call_threadsafe(self._chardev.accept_input)

    def drain(self) -> None:
        """Hand what was written to the character device, which keeps what it cannot send; main thread."""
        with self._machine.lock:
            self._scheduled = False
            data = bytes(self._out)
            self._out.clear()
        if not data or self._chardev is None:
            return
        self._chardev.write(data)
        if not self._chardev.pending():  # taken at once: the character device had nothing to drain
            self._machine.locked(lambda: self._event("drained"))


class ConsoleLine(SerialLine):
    """A character device as a device with rings may use it: nothing reaches it while the machine stands still.

    Args:
        machine: Whose lock and loop are used.
        chardev: The other end.
        hold: As for :class:`SerialLine`.
    """

    __slots__ = ("_end",)

    def __init__(self, machine: Machine, chardev: ConnectedLine, *, hold: bool) -> None:
        super().__init__(machine, chardev, hold=hold)
        self._end = chardev

    @property
    def connected(self) -> bool:
        """Whether somebody is at the other end."""
        return self._end.connected

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows of the terminal at the other end, (0, 0) if that is not known."""
        return self._end.terminal_size()

    def follow_size(self) -> None:
        """Begin to find out the size; event "resized" tells of changes, and comes at each start of the machine."""
        self._machine.at_each_run(lambda: self._event("resized"))
        self._end.follow_size()

    def attach(
        self,
        *,
        receive: Callable[[bytes], object],
        can_receive: Callable[[], int],
        event: Callable[[str], object],
    ) -> None:
        """Connect the device; its callbacks come in the main thread with the lock held, while the machine runs."""
        machine = self._machine
        machine.at_each_run(self.accept_input)
        super().attach(
            receive=receive,
            can_receive=lambda: can_receive() if machine.running else 0,
            event=lambda name: machine.when_running(lambda: event(name)),
        )


def _nobody(_event: str) -> None:
    """Hear events while no device is attached."""


class MachineTimers:
    """Timers for devices: their callbacks run in the main loop with the lock held, and only while the machine runs."""

    __slots__ = ("_machine",)

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def call_later(self, delay_ns: int, callback: Callable[[], object]) -> DeviceTimer:
        """Call ``callback`` once, ``delay_ns`` of host time from now; from any thread."""
        timer = DeviceTimer(callback)
        self._machine.post(lambda: self._start(timer, delay_ns))
        return timer

    def _start(self, timer: DeviceTimer, delay_ns: int) -> None:
        machine = self._machine
        if timer.callback is not None:
            timer.host = machine.loop.call_later(
                delay_ns, lambda: machine.when_running(timer.fire)
            )


class DeviceTimer:
    """A pending call; the machine lock guards it.

    Attributes:
        host: The main loop's timer for it, once there is one.
    """

    __slots__ = ("callback", "host")

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback
        self.host: Timer | None = None

    def cancel(self) -> None:
        """Forget the call, and its host timer: a guest may set its alarm as often as it likes."""
        self.callback = None
        if self.host is not None:
            self.host.cancel()

    def fire(self) -> None:
        """Do it, once."""
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()
