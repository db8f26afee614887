"""What a core reaches through the machine: devices and the machine's part of the SBI, under the machine lock."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import RLock
    from collections.abc import Callable
    from typing import Final, Protocol

    from instar.memory import AddressSpace

    class Firmware(Protocol):
        """The SBI extensions that are not the core's own business."""

        def sbi(self, hart: int, eid: int, fid: int, args: tuple[int, ...], /) -> tuple[int, int]:
            """Serve one call; return (SBI error, value)."""
            ...


SBI_ERR_FAILED: Final = -1


class Bus:
    """The core's way out; called in the vCPU thread, with the GIL, and never raises.

    A fault in our own code must not unwind through the interpreter: it is handed to ``on_bug`` and the access reads 0.
    """

    __slots__ = ("_firmware", "_lock", "_on_bug", "_space")

    def __init__(
        self,
        space: AddressSpace,
        firmware: Firmware | None,
        lock: RLock,
        on_bug: Callable[[BaseException], object],
    ) -> None:
        self._space = space
        self._firmware = firmware
        self._lock = lock
        self._on_bug = on_bug

    def mmio_read(self, gpa: int, size: int) -> int:
        """Load from a device; -1 where none answers."""
        with self._lock:
            try:
                return self._space.mmio_read(gpa, size)
            except BaseException as e:
                self._on_bug(e)
                return 0

    def mmio_write(self, gpa: int, size: int, value: int) -> int:
        """Store to a device; -1 where none answers."""
        with self._lock:
            try:
                return self._space.mmio_write(gpa, size, value)
            except BaseException as e:
                self._on_bug(e)
                return 0

    def pio_read(self, port: int, size: int) -> int:
        """Read from an I/O port (1, 2 or 4 bytes); -1 where no device answers."""
        with self._lock:
            try:
                return self._space.pio_read(port, size)
            except BaseException as e:
                self._on_bug(e)
                return 0

    def pio_write(self, port: int, size: int, value: int) -> int:
        """Write to an I/O port (1, 2 or 4 bytes); -1 where no device takes it."""
        with self._lock:
            try:
                return self._space.pio_write(port, size, value)
            except BaseException as e:
                self._on_bug(e)
                return 0

    def sbi(self, hart: int, eid: int, fid: int, args: tuple[int, ...]) -> tuple[int, int]:
        """Serve an SBI call that the core does not know."""
        if self._firmware is None:
            return SBI_ERR_FAILED, 0
        with self._lock:
            try:
                return self._firmware.sbi(hart, eid, fid, args)
            except BaseException as e:
                self._on_bug(e)
                return SBI_ERR_FAILED, 0
