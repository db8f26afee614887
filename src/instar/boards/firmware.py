"""The machine's part of the SBI: what the core does not serve itself.

Source: RISC-V SBI specification 2.0: chapter 5 (legacy), 10 (SRST), 12 (DBCN).
"""

from __future__ import annotations

from instar.errors import GuestMemoryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Protocol

    from instar.memory import GuestMemory

    class Console(Protocol):
        """Where the debug console prints."""

        def write(self, data: bytes, /) -> None:
            """Send ``data``."""
            ...

        def pending(self) -> int:
            """Return how many bytes the host has not taken yet."""
            ...


EXT_DBCN: Final = 0x4442434E
EXT_SRST: Final = 0x53525354
LEGACY_PUTCHAR: Final = 1
LEGACY_GETCHAR: Final = 2
LEGACY_SHUTDOWN: Final = 8

SBI_SUCCESS: Final = 0
SBI_ERR_FAILED: Final = -1
SBI_ERR_NOT_SUPPORTED: Final = -2
SBI_ERR_INVALID_PARAM: Final = -3

MAX_CONSOLE_WRITE: Final = 4096  # bytes a call; the specification lets us write fewer than asked
PENDING_LIMIT: Final = (
    1 << 20
)  # bytes that the host has not taken before the guest is told to try again


class Firmware:
    """Debug console and system reset; called with the machine lock held."""

    __slots__ = ("_console", "_memory", "_poweroff", "_reset")

    def __init__(
        self,
        memory: GuestMemory,
        console: Console,
        *,
        poweroff: Callable[[int], object],
        reset: Callable[[], object],
    ) -> None:
        self._memory = memory
        self._console = console
        self._poweroff = poweroff
        self._reset = reset

    def sbi(self, hart: int, eid: int, fid: int, args: tuple[int, ...]) -> tuple[int, int]:
        """Serve one call of any hart; return (SBI error, value)."""
        if eid == EXT_DBCN:
            return self._debug_console(fid, args)
        if eid == EXT_SRST:
            return self._system_reset(fid, args)
        if eid == LEGACY_PUTCHAR:
            return self._write_byte(args[0])
        if eid == LEGACY_GETCHAR:
            return -1, 0  # the UART has the input
        if eid == LEGACY_SHUTDOWN:
            self._poweroff(0)
            return SBI_SUCCESS, 0
        return SBI_ERR_NOT_SUPPORTED, 0

    def _debug_console(self, fid: int, args: tuple[int, ...]) -> tuple[int, int]:
        if fid == 0:  # write
            if self._console.pending() > PENDING_LIMIT:
                return SBI_SUCCESS, 0  # nothing was written: the call must not wait
            length = min(args[0], MAX_CONSOLE_WRITE)
            try:
                data = self._memory.read(args[1] | (args[2] << 64), length)
            except GuestMemoryError:
                return SBI_ERR_INVALID_PARAM, 0
            self._console.write(data)
            return SBI_SUCCESS, length
        if fid == 1:  # read: the UART has the input
            return SBI_SUCCESS, 0
        if fid == 2:
            return self._write_byte(args[0])
        return SBI_ERR_NOT_SUPPORTED, 0

    def _write_byte(self, byte: int) -> tuple[int, int]:
        """Write one byte; it fails where it would have to wait for the host's reader."""
        if self._console.pending() > PENDING_LIMIT:
            return SBI_ERR_FAILED, 0
        self._console.write(bytes((byte & 0xFF,)))
        return SBI_SUCCESS, 0

    def _system_reset(self, fid: int, args: tuple[int, ...]) -> tuple[int, int]:
        kind, reason = args[0], args[1]
        if fid != 0:
            return SBI_ERR_NOT_SUPPORTED, 0
        if reason not in (0, 1) and not 0xE0000000 <= reason <= 0xFFFFFFFF:
            return SBI_ERR_INVALID_PARAM, 0
        if kind == 0:
            self._poweroff(1 if reason == 1 else 0)
        elif kind in (1, 2):
            self._reset()
        else:
            return SBI_ERR_INVALID_PARAM, 0
        return SBI_SUCCESS, 0
