"""What a vCPU's exit asks for: access to a device, or an end of running; on bytes laid out as ``struct kvm_run``.

Source: Linux Documentation/virt/kvm/api.rst, "5. The kvm_run structure".
"""

from __future__ import annotations

from instar.cpu.kvm import uapi
from instar.errors import HostError, InternalBugError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from mmap import mmap
    from typing import Final, Protocol

    class Bus(Protocol):
        """Where accesses of the guest go; nothing raises, -1 of a read means that nobody answers."""

        def mmio_read(self, gpa: int, size: int, /) -> int:
            """Load 1, 2, 4 or 8 bytes."""
            ...

        def mmio_write(self, gpa: int, size: int, value: int, /) -> int:
            """Store as many."""
            ...

        def pio_read(self, port: int, size: int, /) -> int:
            """Load 1, 2 or 4 bytes from a port."""
            ...

        def pio_write(self, port: int, size: int, value: int, /) -> int:
            """Store as many."""
            ...

    class Events(Protocol):
        """What else a vCPU may come out with; called in its thread."""

        def wants_reset(self) -> object:
            """The guest is to start anew; the vCPU does not go on."""
            ...

        def wants_shutdown(self) -> object:
            """The guest is to end; the vCPU does not go on."""
            ...

        def end_of_interrupt(self, vector: int, /) -> object:
            """A LAPIC has told the IOAPIC, which is not in the kernel, that the guest is done with it."""
            ...

        def dirty_ring_full(self) -> object:
            """It cannot go on before the ring of written pages is collected."""
            ...


_NATURAL: Final = (1, 2, 4, 8)


class Exits:
    """Serve the exits of one vCPU.

    Args:
        shared: Its ``struct kvm_run`` and the pages behind it.
        bus: Devices.
        events: Everything else.
    """

    __slots__ = ("_bus", "_events", "_served", "_shared")

    def __init__(self, shared: mmap | bytearray, bus: Bus, events: Events) -> None:
        self._shared = shared
        self._bus = bus
        self._events = events
        self._served: Mapping[int, Callable[[], object]] = {
            uapi.EXIT_IO: self._port,
            uapi.EXIT_MMIO: self._memory,
            uapi.EXIT_SHUTDOWN: events.wants_reset,  # a triple fault
            uapi.EXIT_SYSTEM_EVENT: self._system_event,
            uapi.EXIT_IOAPIC_EOI: self._end_of_interrupt,
            uapi.EXIT_DIRTY_RING_FULL: events.dirty_ring_full,
            uapi.EXIT_INTR: _nothing,
            uapi.EXIT_IRQ_WINDOW_OPEN: _nothing,
            uapi.EXIT_SET_TPR: _nothing,
        }

    def serve(self) -> None:
        """Do what the exit asks for.

        Raises:
            HostError: The kernel gave up on this vCPU; the text has what it said of it.
            InternalBugError: The kernel exits with what was never asked for.
        """
        reason: int = uapi.RUN_EXIT.unpack_from(self._shared, uapi.RUN_EXIT_AT)[0]
        served = self._served.get(reason)
        if served is None:
            raise self._gave_up(reason)
        served()

    def _memory(self) -> None:
        shared = self._shared
        gpa, data, size, write = uapi.RUN_MMIO.unpack_from(shared, uapi.RUN_UNION_AT)
        at = uapi.RUN_MMIO_DATA_AT
        if size not in _NATURAL:  # an access that crosses a page comes in two parts
            for n in range(min(size, 8)):
                if write:
                    self._bus.mmio_write(gpa + n, 1, data[n])
                else:
                    shared[at + n] = self._bus.mmio_read(gpa + n, 1) & 0xFF
        elif write:
            self._bus.mmio_write(gpa, size, int.from_bytes(data[:size], "little"))
        else:
            value = self._bus.mmio_read(gpa, size) & (1 << 8 * size) - 1  # -1: all ones
            shared[at : at + size] = value.to_bytes(size, "little")

    def _port(self) -> None:
        shared = self._shared
        write, size, port, count, at = uapi.RUN_IO.unpack_from(shared, uapi.RUN_UNION_AT)
        ones = (1 << 8 * size) - 1
        for n in range(count):  # ins and outs come with several values
            start = at + n * size
            if write:
                value = int.from_bytes(shared[start : start + size], "little")
                self._bus.pio_write(port, size, value)
            else:
                value = self._bus.pio_read(port, size) & ones
                shared[start : start + size] = value.to_bytes(size, "little")

    def _system_event(self) -> None:
        kind, _, data = uapi.RUN_SYSTEM_EVENT.unpack_from(self._shared, uapi.RUN_UNION_AT)
        if kind == uapi.SYSTEM_EVENT_RESET:
            self._events.wants_reset()
        elif kind == uapi.SYSTEM_EVENT_SHUTDOWN:
            self._events.wants_shutdown()
        else:
            raise HostError(
                f"KVM stopped the vCPU with system event {kind} ({data:#x}); it cannot go on"
            )

    def _end_of_interrupt(self) -> None:
        self._events.end_of_interrupt(self._shared[uapi.RUN_UNION_AT])

    def _gave_up(self, reason: int) -> HostError | InternalBugError:
        shared = self._shared
        if reason == uapi.EXIT_FAIL_ENTRY:
            why, cpu = uapi.RUN_FAIL_ENTRY.unpack_from(shared, uapi.RUN_UNION_AT)
            return HostError(
                f"the host's CPU {cpu} refused to enter the guest (hardware reason {why:#x}); it cannot go on"
            )
        if reason == uapi.EXIT_INTERNAL_ERROR:
            return HostError(f"KVM gave up on the vCPU: {internal_error(shared)}; it cannot go on")
        if reason == uapi.EXIT_UNKNOWN:
            (why,) = uapi.U64.unpack_from(shared, uapi.RUN_UNION_AT)
            return HostError(
                f"KVM does not know why the vCPU stopped (hardware reason {why:#x}); it cannot go on"
            )
        name = uapi.EXIT_NAMES.get(reason, f"exit {reason}")
        return InternalBugError(f"KVM came out with KVM_{name}, which nobody asked for")


def internal_error(shared: mmap | bytearray) -> str:
    """Return what an internal error's data says, for people."""
    kind, count = uapi.RUN_INTERNAL.unpack_from(shared, uapi.RUN_UNION_AT)
    at = uapi.RUN_UNION_AT + uapi.RUN_INTERNAL.size
    words = shared[at : at + 8 * min(count, 16)]
    said = uapi.INTERNAL_ERRORS.get(kind, f"internal error {kind}")
    flags = int.from_bytes(words[:8], "little")
    if kind == 1 and len(words) >= 24 and flags & 1:  # the instruction's bytes are there
        return f"{said} ({words[9 : 9 + min(words[8], 15)].hex(' ')})"
    return f"{said} ({bytes(words).hex(' ', 8)})" if words else said


def _nothing() -> None:
    """An exit that only says that the vCPU came out."""
