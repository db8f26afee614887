"""The machine: run states, the order of stopping and starting, reset and shutdown.

Everything here runs in the main thread except ``request_*`` and ``on_bug``, which devices and the core call in the
vCPU thread; those only make the harts park and leave the rest to the main loop.
"""

from __future__ import annotations

import _thread

from instar import log
from instar.cpr.errors import StateInvalidError
from instar.cpr.state import State, i, state, text, u
from instar.errors import CommandError, HostError, InstarError
from instar.events import EventBus
from instar.machine.balloon import Balloon
from instar.machine.parts import Cpu, Disk, Region
from instar.machine.runstate import NEEDS_RESET, TRANSITIONS, RunStateMachine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import ClassVar, Final, Literal

    from instar.loop import Loop
    from instar.machine.parts import Parts
    from instar.machine.runstate import RunState
    from instar.stateful import Stateful

    ResetAction = Literal["reset", "shutdown"]
    ShutdownAction = Literal["poweroff", "pause"]
    PanicAction = Literal["none", "pause", "shutdown"]
    WatchdogAction = Literal["reset", "poweroff", "pause", "none"]


NO_BREAK: Final = -1


@state("machine", version=1)
class MachineState(State):
    """What the machine was doing when it was saved."""

    runstate: str = text(
        "QEMU's RunState name at the moment of saving, before the save stopped it.", max=32
    )
    pending: str = text(
        "What the guest asked for and did not get yet: reset, shutdown, panic, watchdog; or internal-error.",
        max=32,
    )
    pending_status: int = u(8, "With a pending shutdown: the exit status.")
    replay_break: int = i(64, "Instruction count to stop at, -1: none.", default=-1)

    def check(self) -> None:
        """Refuse a run state or a wish that does not exist."""
        if self.runstate and self.runstate not in TRANSITIONS:
            raise StateInvalidError(f"machine.runstate: {self.runstate!r} is not a run state")
        if self.pending not in ("", "reset", "shutdown", "internal-error", "panic", "watchdog"):
            raise StateInvalidError(f"machine.pending: {self.pending!r} is not a wish of a guest")


class Machine:
    """A virtual machine: its harts, its board and what it is doing.

    Attributes:
        name: ``-name``, may be empty.
        uuid: ``-uuid``, canonical text.
        stateful: Everything that crosses an update, in the order of loading.
        autostart: Run as soon as there is something to run (no ``-S``).
        exit_status: What the process should end with once the loop has quit.
        unfinished: Why the last stop is not whole: what the host still does with the guest's memory.
        handed_out: The state was collected for another program: what the user wants now does not go along any more.
        may_run: Called before the harts run and before RAM is reset; raises CommandError if another program has the
            guest.
    """

    state_id = "machine"
    state_class: ClassVar[type[State]] = MachineState

    def __init__(  # noqa: PLR0913 - what the user chose, named
        self,
        *,
        name: str,
        uuid: str,
        loop: Loop,
        on_reset: ResetAction,
        on_shutdown: ShutdownAction,
        on_panic: PanicAction = "shutdown",
        on_watchdog: WatchdogAction = "reset",
    ) -> None:
        self.name = name
        self.uuid = uuid
        self.loop = loop
        self.lock = _thread.RLock()
        self.events = EventBus()
        self.balloon = Balloon(self)
        self.stateful: list[Stateful] = [self]
        self.state = MachineState()
        self.autostart = True
        self.exit_status = 0
        self.unfinished: list[str] = []
        self.handed_out = False
        self._states = RunStateMachine()
        self._on_reset: ResetAction = on_reset
        self._on_shutdown: ShutdownAction = on_shutdown
        self._on_panic: PanicAction = on_panic
        self._on_watchdog: WatchdogAction = on_watchdog
        self.may_run: Callable[[], object] = (
            bool  # raises CommandError if another program has the guest
        )
        self._ending = False
        self._waiting: list[Callable[[], object]] = []  # for the machine to run
        self._at_run: list[Callable[[], object]] = []
        self._main_thread = _thread.get_ident()

    def attach(self, parts: Parts) -> None:
        """Give the machine what it runs; once, before anything else is called."""
        self.vcpus = parts.vcpus
        self.board = parts.board
        self._drainables = parts.drainables
        self.space = parts.space
        self.memory_backends = parts.memory_backends
        self.block_devices = [Disk(block, device) for block, device in parts.disks]
        self._disks = [block for block, _ in parts.disks]
        self._retriers = parts.retriers
        self.stateful += parts.stateful

    def post(self, callback: Callable[[], object]) -> None:
        """Run ``callback`` in the main loop with the machine lock held; from any thread."""
        self.loop.call_threadsafe(lambda: self.locked(callback))

    def post_or_run(self, callback: Callable[[], object]) -> None:
        """Run ``callback`` with the machine lock held: here, if nobody has the lock, else in the main loop.

        From any thread that holds no lock; it saves waking the main loop, which costs more than most disk requests.
        """
        if not self.lock.acquire(blocking=False):
            self.post(callback)
            return
        try:
            callback()
        except BaseException as e:
            self.on_bug(e)
        finally:
            self.lock.release()

    def locked(self, callback: Callable[[], object]) -> None:
        """Run ``callback`` with the machine lock held; in the main thread."""
        with self.lock:
            callback()

    def when_running(self, callback: Callable[[], object]) -> None:
        """Run ``callback`` with the machine lock held, now or as soon as the machine runs; in the main thread.

        For what changes guest RAM or devices by itself: while the machine stands still they may have been saved.
        """
        if self.running:
            self.locked(callback)
        else:
            self._waiting.append(callback)

    def at_each_run(self, callback: Callable[[], object]) -> None:
        """Run ``callback`` with the machine lock held whenever the harts are about to run after a stop."""
        self._at_run.append(callback)

    @property
    def runstate(self) -> RunState:
        """What the machine is doing."""
        return self._states.current

    @property
    def ending(self) -> bool:
        """Whether the process is about to end: nobody will be asked for more."""
        return self._ending

    @property
    def running(self) -> bool:
        """Whether the harts run."""
        return self._states.current == "running"

    def set_runstate(self, new: RunState) -> None:
        """Go to ``new`` without starting or stopping anything: for a machine whose harts are parked."""
        self._states.set(new)

    def start(self) -> None:
        """Let the machine run, as the user wants (``cont``); while a migration comes in: run once it is there.

        Raises:
            CommandError: the run state does not allow it; nothing changed.
        """
        if self.runstate == "inmigrate":
            self.autostart = True
        elif self.needs_reset:
            raise CommandError("Resetting the Virtual Machine is required")
        elif self.runstate == "finish-migrate":
            raise CommandError("Migration is not finalized yet")
        else:
            self.resume()

    def stop(self) -> None:
        """Pause the machine, as the user wants (``stop``); while a migration comes in: stay paused after it.

        Raises:
            CommandError: the state is with another program by now, which may run the guest.
        """
        if self.runstate == "inmigrate":
            self.autostart = False
        elif self.runstate == "finish-migrate" and self.state.runstate == "running":
            if self.handed_out:
                raise CommandError("Migration is not finalized yet: the guest may go on elsewhere")
            self.state.runstate = (
                "paused"  # what it will be when the migration is over, here or there
            )
        elif self.running:
            self.halt("paused")

    def go_back(self) -> None:
        """Do again what :meth:`note_runstate` saw: a migration is off. A machine that is ending stays as it is.

        Raises:
            InstarError: As :meth:`resume`; the machine is paused, and may be started when the reason is gone.
        """
        if self.state.runstate == "running":
            if not self._ending:
                self._resume_or_pause()
            return
        for known in TRANSITIONS:
            if known == self.state.runstate:
                self._states.set(known)

    def resume(self) -> None:
        """Let the harts run and tell so (RESUME); running already is fine.

        Raises:
            InstarError: a disk is in use elsewhere by now; the machine did not start.
        """
        if self.running:
            return
        self.may_run()
        self.take_disks()
        self._states.set("running")
        waiting, self._waiting = self._waiting, []
        for callback in waiting + [device.retry for device in self._retriers] + self._at_run:
            try:
                self.locked(callback)
            except Exception as e:  # of one device; the others are not served twice
                self.on_bug(e)
        self._run_harts()
        self.events.emit(
            "RESUME"
        )  # after, since telling takes time that the guest would stand still

    def _resume_or_pause(self) -> None:
        try:
            self.resume()
        except InstarError:
            self._states.set("paused")
            raise

    def _run_harts(self) -> None:
        if self.state.pending:
            self.loop.call_soon(self._serve_request)
            return
        self.vcpus.clock_start()
        self.vcpus.resume()

    def halt(self, new: RunState) -> None:
        """Park the harts, finish the I/O in flight, stop virtual time and tell so (STOP).

        A machine that does not run only changes its run state.
        """
        was_running = self.running
        self._quiesce()
        self.balloon.settle()
        self._states.set(new)
        if was_running:
            self.events.emit("STOP")

    def _quiesce(self) -> None:
        self.vcpus.pause()
        self.vcpus.clock_stop()
        with self.lock:  # completions are delivered from within
            found = [backend.drain() for backend in self._drainables]
        self.unfinished = [why for why in found if why]
        for why in self.unfinished:
            log.limited("warning", "machine", f"stopping: {why}")

    def get_ready(self) -> None:
        """Take what running needs and the host may refuse: disks and a thread; having them is fine.

        Raises:
            HostError: a disk is in use elsewhere.
            RuntimeError: the host has no more threads for us.
        """
        self.take_disks()
        self.vcpus.get_ready()

    def take_disks(self) -> None:
        """Take the disks' locks; having them is fine.

        Raises:
            HostError: one is in use elsewhere.
        """
        for disk in self._disks:
            disk.activate()

    def flush_ahead(self) -> None:
        """Bring to the disks what was written so far: :meth:`release_disks` has less to do then; from any thread."""
        for disk in self._disks:
            disk.flush_ahead()

    def release_disks(self) -> None:
        """Give the disks up for another program (their locks, after a flush); running again takes them back."""
        with self.lock:
            for disk in self._disks:
                disk.inactivate()

    def resize_disk(self, ident: str, size: int) -> None:
        """Give the disk ``ident`` another size, in bytes, and tell the guest.

        Raises:
            CommandError: there is none of that name, or it cannot have that size; nothing changed.
            HostError: the host refused; nothing changed.
        """
        for disk in self._disks:
            if disk.id == ident:
                break
        else:
            raise CommandError(f"Cannot find device='{ident}' nor node-name='{ident}'")
        with self.lock:
            disk.resize(size)
            for device in self._retriers:
                if device.block is disk:
                    device.resized()

    @property
    def needs_reset(self) -> bool:
        """Whether the machine has to be reset before it may run."""
        return self.runstate in NEEDS_RESET

    def reset(self, reason: str = "host-qmp-system-reset", *, guest: bool = False) -> None:
        """Bring the machine to the state after power-on; it goes on running if it ran.

        With ``-no-reboot`` this is a shutdown. If the host refuses what it needs, the machine is in run state
        ``internal-error`` as soon as it would run.
        """
        if self._on_reset == "shutdown":
            self.shutdown(reason, guest=guest)
            return
        self.may_run()
        was_running = self.running
        self._quiesce()
        try:
            with self.lock:
                self.board.reset()
        except HostError as e:  # the guest is neither what it was nor new
            self.on_bug(e)
            return
        self.state.pending = ""
        self.events.emit("RESET", {"guest": guest, "reason": reason})
        if was_running:
            self._run_harts()
        else:
            self._states.set("prelaunch")

    def powerdown(self) -> None:
        """Press the power button: the guest may act on it (POWERDOWN)."""
        self.locked(self.board.power_button)
        self.events.emit("POWERDOWN")

    def quit(self, reason: str = "host-qmp-quit") -> None:
        """End the machine and the loop, whatever ``-no-shutdown`` says."""
        self._end({"guest": False, "reason": reason})

    def shutdown(
        self, reason: str = "guest-shutdown", *, guest: bool = True, status: int = 0
    ) -> None:
        """Power off: end the process, or with ``-no-shutdown`` stop in run state ``shutdown``."""
        if self._on_shutdown == "pause":
            self.events.emit("SHUTDOWN", {"guest": guest, "reason": reason})
            if self.running:
                self.halt("shutdown")
            return
        self.exit_status = status
        self._end({"guest": guest, "reason": reason})

    def _end(self, data: dict[str, object]) -> None:
        if self._ending:
            return
        self._ending = True
        self._quiesce()
        self.events.emit("SHUTDOWN", data)
        self.loop.call_soon(self.loop.quit)  # after the event has been written to its monitors

    # What monitors look at

    @property
    def ram_size(self) -> int:
        """Bytes of RAM."""
        return sum(region.size for region in self.space.ram)

    @property
    def cpus(self) -> Sequence[Cpu]:
        """The harts by index."""
        return [Cpu(self.vcpus, n) for n in range(self.vcpus.count)]

    @property
    def regions(self) -> Sequence[Region]:
        """The address space by base address."""
        ram = [Region(r.base, r.size, r.block.id, is_ram=True) for r in self.space.ram]
        mmio = [Region(r.base, r.size, r.name, is_ram=False) for r in self.space.mmio]
        return sorted(ram + mmio, key=lambda region: region.base)

    def read_physical(self, gpa: int, length: int) -> bytes:
        """Return guest RAM; GuestMemoryError if any byte lies outside."""
        return self.space.memory.read(gpa, length)

    @property
    def hardware(self) -> bool:
        """Whether the host's processor runs the guest's instructions itself."""
        return self.vcpus.hardware

    @property
    def icount(self) -> int:
        """Instructions executed so far under ``-icount``, -1 without it."""
        return self.vcpus.instructions() if self.vcpus.counts else -1

    @property
    def replay_break(self) -> int:
        """The instruction count at which the machine will stop, -1 if none is set."""
        return self.state.replay_break

    def set_replay_break(self, icount: int) -> None:
        """Stop when ``icount`` instructions were executed; -1 forgets the break.

        Raises:
            CommandError: without ``-icount``, or the count has passed; nothing changed.
        """
        if not self.vcpus.counts:
            raise CommandError("no instruction count: the machine runs without -icount")

        def set_it() -> int:
            now = self.vcpus.instructions()
            if icount == NO_BREAK or icount > now:
                self.vcpus.set_break(icount)
                self.state.replay_break = icount
            return now

        now = self.vcpus.parked(set_it)
        if icount != NO_BREAK and icount <= now:
            raise CommandError(f"instruction count {icount} has passed: {now} were executed")

    # From the vCPU thread: park at the next boundary, so that the guest executes nothing it should not, and go on in
    # the main loop. A wish that finds the machine stopped by somebody else is kept (it is state) until it runs again.

    def request_reset(self) -> None:
        """Reset at the guest's wish."""
        self._request("reset", 0)

    def request_shutdown(self, status: int = 0) -> None:
        """Power off at the guest's wish; ``status`` is what the guest said (0: fine)."""
        self._request("shutdown", status)

    def request_panic(self) -> None:
        """Do as ``-action panic=`` says: the guest has panicked."""
        self._request("panic", 0)

    def crash_loaded(self) -> None:
        """Tell that the guest has panicked and starts its crash kernel."""
        self.loop.call_threadsafe(lambda: self.events.emit("GUEST_CRASHLOADED", {"action": "run"}))

    def request_watchdog(self) -> None:
        """Do as ``-action watchdog=`` says: the guest does not say any more that it lives; from any thread."""
        if not self.state.pending:
            self._request("watchdog", 0)

    def on_bug(self, error: BaseException) -> None:
        """Stop in run state ``internal-error``: our own code failed while it served the guest, or the host did."""
        if isinstance(error, HostError):
            log.error(f"the machine is stopped: {error}")
            self._request("internal-error", 0)
            return
        from traceback import format_exception  # noqa: PLC0415 - a bug may take its time, an update may not

        log.error(
            f"a device failed while it served the guest, the machine is stopped: {error!r}; please report this"
        )
        for line in format_exception(error):
            log.error(line.rstrip())
        self._request("internal-error", 0)

    def on_break(self) -> None:
        """Stop in run state ``paused``: the harts parked themselves at an instruction-count break."""
        self.loop.call_threadsafe(self._break_reached)

    def _break_reached(self) -> None:
        """Stop, unless somebody else did meanwhile: then the break is met again when the machine runs."""
        at = self.state.replay_break
        if self.running and at != NO_BREAK and self.vcpus.instructions() >= at:
            self.stop()
            self.state.replay_break = NO_BREAK
            self.vcpus.set_break(NO_BREAK)

    def _request(self, kind: str, status: int) -> None:
        self.state.pending = kind
        self.state.pending_status = status & 0xFF
        self.vcpus.hold()
        self.loop.call_threadsafe(self._serve_request)

    def _serve_request(self) -> None:
        kind = self.state.pending
        if not kind or not self.running:
            return
        self.state.pending = ""
        if kind == "reset":
            self.reset("guest-reset", guest=True)
        elif kind == "shutdown":
            self.shutdown("guest-shutdown", status=self.state.pending_status)
        elif kind == "panic":
            self._panicked()
        elif kind == "watchdog":
            self._watchdog_expired()
        else:
            self.halt("internal-error")

    def _panicked(self) -> None:
        if self._on_panic == "none":
            self.events.emit("GUEST_PANICKED", {"action": "run"})
            self._go_on()
            return
        stay = self._on_panic == "pause" or self._on_shutdown == "pause"
        self.events.emit("GUEST_PANICKED", {"action": "pause" if stay else "poweroff"})
        self.halt("guest-panicked")
        if not stay:
            self.shutdown("guest-panic")

    def _watchdog_expired(self) -> None:
        action = self._on_watchdog
        self.events.emit("WATCHDOG", {"action": action})
        if action == "reset":
            self.reset("guest-reset", guest=True)
        elif action == "poweroff":
            self.shutdown("guest-shutdown")
        elif action == "pause":
            self.halt("watchdog")
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Let the harts go on that a request has parked."""
        self._quiesce()
        self._run_harts()

    def io_error(self, event: Mapping[str, object], *, stop: bool) -> None:
        """Tell of a failed disk request (BLOCK_IO_ERROR); from any thread.

        With ``stop`` the machine stops soon in run state ``io-error``, if the device still keeps the request by then
        (the guest may have reset it).
        """
        if _thread.get_ident() == self._main_thread:
            self.events.emit("BLOCK_IO_ERROR", event)
        else:
            self.loop.call_threadsafe(lambda: self.events.emit("BLOCK_IO_ERROR", event))
        if stop:
            self.loop.call_threadsafe(self._stop_for_io_error)

    def _stop_for_io_error(self) -> None:
        if self.running and any(device.stalled for device in self._retriers):
            self.halt("io-error")

    # Stateful

    def note_runstate(self) -> None:
        """Remember, for an update, what the machine does now, before the update stops it."""
        self.state.runstate = self.runstate

    def save_state(self) -> MachineState:
        """Return what :meth:`note_runstate` saw and what the guest still waits for."""
        return self.state

    def load_state(self, state: MachineState) -> None:
        """Take over; whoever loads decides by ``state.runstate`` whether to start."""
        self.state = state
        if self.vcpus.counts:
            self.vcpus.set_break(state.replay_break)
