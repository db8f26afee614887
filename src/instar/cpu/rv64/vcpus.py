"""The software CPU as a machine uses it: a thread that interprets all harts, sleeps when they all wait, and parks.

The thread holds neither the GIL nor the machine lock while it interprets. :meth:`Rv64Vcpus.pause` is the only place
that waits for it; never call it with the machine lock held, since a device access may be waiting for that lock.
"""

from __future__ import annotations

import _thread
from time import monotonic_ns

from instar import signals
from instar.cpu.rv64 import EXIT_BREAK, EXIT_DEFERRED, EXIT_IDLE
from instar.cpu.rv64.boxes import CoreBox, HartBox, ModelBox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final, Protocol, TypeVar

    from instar.cpu.rv64 import Core
    from instar.cpu.rv64.state import ModelState
    from instar.stateful import Stateful

    T = TypeVar("T")

    class Timers(Protocol):
        """Timers of devices in virtual time that counts instructions."""

        def fire(self) -> int:
            """Call what is due; return when the next one is, -1 if there is none."""
            ...

        def next_ns(self) -> int:
            """Return when the next one is due, -1 if there is none; call nothing."""
            ...


_NO_LIMIT: Final = 1 << 62  # instructions; the core comes back when kicked, idle or at a break
_NEVER: Final = -1
_LONGEST_SLEEP_S: Final = 3600.0  # a guest may set a timer further away than the host can wait


class Rv64Vcpus:
    """Run a core in a thread of its own, between :meth:`resume` and :meth:`pause`.

    It is a ``Vcpus`` of ``instar.machine.parts``, where its members are described.

    Args:
        core: The harts.
        model: What the command line decides of them; with a count of instructions (``icount_shift``) its clock is that.
        icount_sleep: With such a clock: sleep for real while all harts wait (True), or jump to the next timer (False).
        timers: With such a clock: timers of devices.
        on_break: Called in the vCPU thread when the break count was reached; the thread parks itself.
        on_bug: Called in the vCPU thread with an exception that our own code let through; the thread parks itself.
    """

    __slots__ = (
        "_begun",
        "_go",
        "_held",
        "_ident",
        "_on_break",
        "_on_bug",
        "_parked",
        "_running",
        "_shift",
        "_sleep",
        "_stop",
        "_thread_id",
        "_timers",
        "_wake",
        "core",
        "counts",
        "hardware",
        "harts",
        "states",
    )  # fmt: skip

    def __init__(
        self,
        core: Core,
        *,
        model: ModelState,
        icount_sleep: bool,
        timers: Timers,
        on_break: Callable[[], object],
        on_bug: Callable[[BaseException], object],
    ) -> None:
        self.core = core
        self.hardware = False
        self.counts = model.icount_shift >= 0
        self._shift = model.icount_shift
        self.harts: list[Stateful] = [
            CoreBox(core),
            *(HartBox(core, n) for n in range(model.harts)),
        ]
        self.states: list[Stateful] = [ModelBox(model), *self.harts]
        self._timers = timers
        self._sleep = icount_sleep
        self._on_break = on_break
        self._on_bug = on_bug
        # Locks serve as binary semaphores: they need no descriptor and their time-outs are precise.
        self._go = _thread.allocate_lock()
        self._parked = _thread.allocate_lock()
        self._wake = _thread.allocate_lock()
        self._begun = _thread.allocate_lock()
        for semaphore in (self._go, self._begun, self._parked, self._wake):
            semaphore.acquire()
        self._ident = 0
        self._running = False
        self._stop = True
        self._held = False  # parked for the main loop to act: only resume() lets the harts go on
        self._thread_id = 0

    def resume(self) -> None:
        """Let the harts run; already running is fine. The thread has begun when this returns.

        Otherwise it would get the GIL only after what the main thread does next, 5 ms later if that is much.
        """
        if self._running:
            return
        self._running = True
        self._held = False
        self._stop = False
        self.get_ready()
        self._go.release()
        self._begun.acquire()

    def get_ready(self) -> None:
        """Start the thread, parked; having it is fine.

        Raises:
            RuntimeError: The host has no more threads for us.
        """
        if not self._ident:
            self._ident = signals.start_thread(self._main)
            self._begun.acquire()  # it may still fail to begin: better here than when only it can go on

    def pause(self) -> None:
        """Park the thread at an instruction boundary and return when it is parked."""
        if not self._running:
            return
        self._ask_to_park()
        self._parked.acquire()
        self._running = False

    def parked(self, look: Callable[[], T]) -> T:
        """Call ``look`` while the harts stand still, and let them go on if they ran and nobody held them."""
        was_running = self._running
        self.pause()
        try:
            return look()
        finally:
            if was_running and not self._held:
                self.resume()

    def hold(self) -> None:
        """Make the harts park at the next instruction boundary until :meth:`resume`; from the vCPU thread."""
        self._held = True
        self._ask_to_park()

    def _ask_to_park(self) -> None:
        self._stop = True
        self.core.kick()
        self.wake()

    def next_timer_ns(self) -> int:
        """Return when the first timer of a device in virtual time is due, -1 if there is none; while parked."""
        return self._timers.next_ns()

    def set_irq(self, hart: int, bit: int, level: bool) -> None:  # noqa: FBT001 - the shape of a wire
        """Drive one external interrupt line of a hart and wake the thread if it sleeps; from any thread."""
        self.core.set_irq(hart, bit, level)
        if level and _thread.get_ident() != self._ident:
            self.wake()

    def wake(self) -> None:
        """End the thread's sleep, or its next one."""
        try:
            self._wake.release()
        except RuntimeError:  # it was released already: one wake-up is enough
            return

    # What monitors look at, and what else a machine asks

    @property
    def target(self) -> str:
        """Architecture, named as in QEMU."""
        return "riscv64"

    @property
    def qom_type(self) -> str:
        """QEMU's name of their type."""
        return "rv64-riscv-cpu"

    @property
    def count(self) -> int:
        """Number of harts."""
        return self.core.harts

    def now_ns(self) -> int:
        """Return virtual time."""
        return self.core.now_ns()

    def clock_start(self) -> None:
        """Let virtual time go on."""
        self.core.clock_start()

    def clock_stop(self) -> None:
        """Let virtual time stand still."""
        self.core.clock_stop()

    def instructions(self) -> int:
        """Return how many were executed; they are counted in any case."""
        return self.core.icount

    def set_break(self, count: int) -> None:
        """Park when ``count`` instructions were executed; -1: never."""
        self.core.set_break(count)

    def thread_id(self, _n: int) -> int:
        """Return the host's id of the thread, which all harts share; 0 before the first resume."""
        return self._thread_id

    def registers(self, n: int) -> Mapping[str, int]:
        """Return a hart's registers, the program counter first."""
        from instar.cpu.rv64.look import named  # noqa: PLC0415 - nobody resumes into this

        return named(self.parked(lambda: self.core.save_hart(n)))

    def translate(self, n: int, va: int) -> int:
        """Return the guest physical address of a hart's ``va``, -1 if it has none."""
        return self.parked(lambda: self.core.translate(n, va))

    def disassemble(self, read: Callable[[int, int], bytes], address: int) -> tuple[int, str]:
        """Return an instruction's length and text."""
        from instar.cpu.rv64.look import disassembled  # noqa: PLC0415 - nobody resumes into this

        return disassembled(read, address)

    def reload(self, load: Callable[[], object]) -> None:
        """Let ``load`` give the harts other state, while devices have gone on to drive their lines here."""
        lines = [self.core.save_hart(n)["lines"] for n in range(self.count)]
        self.core.reset()  # its decoded code is of the memory before
        load()
        for n, up in enumerate(lines):
            self.core.load_hart(n, {**self.core.save_hart(n), "lines": up})

    def _main(self) -> None:
        self._thread_id = _thread.get_native_id()
        self._begun.release()
        while True:
            self._go.acquire()
            self._begun.release()
            try:
                while not self._stop:
                    self._turn()
            except (
                BaseException
            ) as e:  # else the thread would end, and pause() would wait for ever
                self.hold()
                self._on_bug(e)
            self._parked.release()

    def _turn(self) -> None:
        at_ns = self._timers.fire()
        reason = self.core.run(self._instructions_until(at_ns))
        if reason == EXIT_IDLE:
            self._idle(at_ns)
        elif reason == EXIT_BREAK:
            self.hold()
            self._on_break()
        elif reason == EXIT_DEFERRED:
            self.hold()

    def _instructions_until(self, at_ns: int) -> int:
        if at_ns == _NEVER:
            return _NO_LIMIT
        left_ns = at_ns - self.core.now_ns()
        return (left_ns + (1 << self._shift) - 1) >> self._shift

    def _idle(self, timer_ns: int) -> None:
        """Wait until the first timer, of a hart or of a device, a wake-up, or for ever."""
        deadline = self.core.deadline_ns()
        if deadline == _NEVER or 0 <= timer_ns < deadline:
            deadline = timer_ns
        if deadline == _NEVER:
            self._wake.acquire()
            return
        if self.counts and not self._sleep:
            self.core.warp_to(deadline)
            return
        now = self.core.now_ns()
        start = monotonic_ns()
        self._wake.acquire(timeout=min(max(0, deadline - now) / 1e9, _LONGEST_SLEEP_S))
        if self.counts:
            self.core.warp_to(min(deadline, now + monotonic_ns() - start))
