# ruff: noqa: PYI021 - the implementation is generated: this is where its interface is read
"""The core, made at build from the tables and the parts in ``core/``."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from typing_extensions import Buffer, CapsuleType

EXIT_LIMIT: Final[int]
"""The limit of this call was reached."""
EXIT_KICKED: Final[int]
"""``kick`` was called."""
EXIT_IDLE: Final[int]
"""All harts wait or are stopped; ``deadline_ns`` says until when."""
EXIT_BREAK: Final[int]
"""The count given to ``set_break`` was reached."""
EXIT_WATCH: Final[int]
"""The doubleword given to ``set_watch`` is not 0 any more."""
EXIT_DEFERRED: Final[int]
"""The next instruction of a core that defers reaches out of it: another core has to execute it."""

class Bus(Protocol):
    """What a core calls, in the thread that runs it, with the GIL.

    It must not raise. If it does, the access or call fails, ``run`` ends at the instruction and raises it.
    """

    def mmio_read(self, gpa: int, size: int, /) -> int:
        """Return what a device register of 1, 2, 4 or 8 bytes reads as; -1 where nothing answers."""

    def mmio_write(self, gpa: int, size: int, value: int, /) -> int:
        """Write a device register; -1 where nothing answers, else anything."""

    def sbi(self, hart: int, eid: int, fid: int, args: tuple[int, ...], /) -> tuple[int, int]:
        """Serve DBCN, SRST, or a legacy console or shutdown call with a0..a5; return (SBI error, value)."""

class Core:
    """RV64GC harts that take turns in the thread that calls ``run``.

    ``kick``, ``set_irq``, ``dma_written`` and, in real time, ``now_ns`` may be called from any thread. Everything else
    is for the thread that runs the core, or for others while it is not running; what would change a running core
    raises ``RuntimeError`` and changes nothing. Reading state of a running core is safe and may be torn.

    Args:
        ram_addr: Host address of the guest's RAM; it must stay mapped as long as the core exists.
        ram_base: Guest physical address of RAM, whole pages.
        ram_size: Bytes, whole pages.
        harts: 1 to 8; all begin stopped, in machine mode, at ``ram_base``.
        bus: Devices and the machine's part of the SBI.
        icount_shift: -1: virtual time is the host's monotonic clock while the clock runs. 0 to 10: it advances by
            ``1 << icount_shift`` ns for each instruction, and everything the guest sees is a function of its input.
        flush_everything: Never keep a translation over a fence or a trap. The guest must not see a difference.
        sstc: Supervisor mode may use ``stimecmp`` itself (the Sstc extension).
        defers: Stop before any instruction that would reach devices or the machine's part of the SBI, as if it had
            not been begun; the bus is never called. Another core goes on with the state.

    Raises:
        ValueError: an argument is out of its range; no core was made.
        MemoryError: no core was made.
    """

    def __init__(
        self,
        *,
        ram_addr: int,
        ram_base: int,
        ram_size: int,
        harts: int,
        bus: Bus,
        icount_shift: int = -1,
        flush_everything: bool = False,
        sstc: bool = True,
        defers: bool = False,
    ) -> None: ...
    def run(self, limit: int) -> int:
        """Interpret until there is a reason to return, exactly at an instruction boundary.

        Args:
            limit: Instructions, over all harts. An exception counts as one.

        Returns:
            One of ``EXIT_*``.

        Raises:
            RuntimeError: it runs already.
            BaseException: what the bus raised; the state is that after the instruction.
        """

    def kick(self) -> None:
        """Make ``run``, or its next call, return ``EXIT_KICKED`` soon (within about 50 us); from any thread."""

    def set_irq(self, hart: int, bit: int, level: bool) -> None:
        """Drive an external interrupt line of a hart: bit 9 supervisor, 11 machine; from any thread.

        Raises:
            ValueError: no such hart or line; nothing was changed.
        """

    def dma_written(self, gpa: int, length: int) -> None:
        """Say that something else than a hart wrote guest memory (after it did); from any thread.

        Harts see changed code from their next fence.i or device access on. Addresses outside of RAM are ignored.
        """

    @property
    def write_notice(self) -> CapsuleType:
        """Return ``dma_written`` as a C function for other compiled parts; it is good as long as the core is there."""

    def start_hart(self, hart: int, pc: int, a0: int, a1: int) -> None:
        """Start a hart from reset in supervisor mode, with the built-in SBI under it."""

    def now_ns(self) -> int:
        """Return virtual time in nanoseconds, also exactly from within a device access."""

    def clock_start(self) -> None:
        """Let virtual time run with the host's clock; without effect if it counts instructions."""

    def clock_stop(self) -> None:
        """Freeze virtual time; without effect if it counts instructions."""

    def warp_to(self, ns: int) -> None:
        """Move virtual time forward; an earlier time is ignored."""

    def deadline_ns(self) -> int:
        """Return the virtual time at which the first enabled timer fires, -1: never."""

    @property
    def icount(self) -> int:
        """Instructions and exceptions executed since power-on, over all harts."""

    @property
    def harts(self) -> int:
        """Number of harts."""

    def set_break(self, icount: int) -> None:
        """Make ``run`` return ``EXIT_BREAK`` exactly there, and again until the break is moved; -1: nowhere."""

    def set_watch(self, gpa: int) -> None:
        """Make ``run`` return ``EXIT_WATCH`` after a store that leaves a doubleword of RAM other than 0; -1: none."""

    def save_hart(self, hart: int) -> dict[str, Any]:
        """Return the fields of ``HartState``: int or list[int]."""

    def load_hart(self, hart: int, fields: Mapping[str, int | list[int]]) -> None:
        """Set some or all fields of ``HartState``; bits that no write could set are dropped, caches start empty.

        Raises:
            ValueError: a field is unknown, too long or contradicts; nothing was loaded.
        """

    def save_shared(self) -> dict[str, int]:
        """Return the fields of ``CoreState``."""

    def load_shared(self, fields: Mapping[str, int]) -> None:
        """Set all fields of ``CoreState``.

        Raises:
            ValueError: a field is out of its range; nothing was loaded.
        """

    def translate(self, hart: int, va: int) -> int:
        """Return the guest physical address of a hart's virtual address, -1 if it has none; no effect on the guest."""

    def reset(self) -> None:
        """Put all harts into their first state; time and count go on."""

    def stats(self) -> dict[str, int]:
        """Return counts of events since power-on, for people who tune or debug."""

def address_of(buffer: Buffer) -> int:
    """Return the host address of a writable contiguous buffer's first byte, valid as long as the buffer's memory."""
