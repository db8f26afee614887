"""The new program's half: read, check everything, then load and run. On the resume path.

Until the first state is applied a failure leaves the machine as it was, and another try is possible.
"""

from __future__ import annotations

import os
import sys
from time import monotonic_ns

from instar import log, prepared, signals
from instar._version import VERSION
from instar.cpr.errors import PeerError, StateCorruptError, StateInvalidError, TakenOverError
from instar.cpr.stream import Reader
from instar.errors import CommandError, HostError
from instar.migration.channels import BRIDGE, MAIN_FD, open_file
from instar.migration.identity import KEY
from instar.migration.report import Report
from instar.migration.sections import read_records, read_sections

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from instar.cpr.adopted import Adopted
    from instar.cpr.state import State
    from instar.machine.parts import MemoryBackend
    from instar.machine.runstate import RunState
    from instar.migration.again import Tried
    from instar.migration.channels import Address
    from instar.migration.identity import Identity
    from instar.migration.migration import Migration
    from instar.migration.sections import Loaded

TURN: Final = 16 << 20  # bytes of RAM read in one turn of the main loop
_TRIES: Final = 60
_AGAIN_NS: Final = 1_000_000_000


class Incoming:
    """One incoming migration.

    Args:
        migration: Whose machine is loaded.
        address: Where the state is.
        adopted: What the program before this one handed over; None if this one was started on its own.
    """

    def __init__(self, migration: Migration, address: Address, adopted: Adopted | None) -> None:
        self._migration = migration
        self._machine = migration.machine
        self._adopted = adopted
        self._fd = self._open(address)
        self._built_ns = monotonic_ns()
        self.report = _inherited_report(adopted, self._built_ns)
        self._loaded: Loaded | None = None
        self._owner: Identity | None = None  # whose state it is
        self._left: list[MemoryBackend] = []  # memory that waits in its file
        try:
            self._reader = Reader(self._fd, offset=address.offset)
            self._take_report()
        except BaseException:
            os.close(self._fd)
            raise

    def _take_report(self) -> None:
        """Go on with the report that came with the state: the program that wrote it went on after it handed over."""
        record = self._reader.manifest.info.get("report")
        if isinstance(record, dict):
            self.report = Report.from_record(record)  # pyright: ignore[reportUnknownArgumentType]
            self._built_ns = monotonic_ns()

    def _open(self, address: Address) -> int:
        if not address.path:
            fd = -1 if self._adopted is None else self._adopted.fds.find(*MAIN_FD)
            if fd < 0:
                raise CommandError(
                    "memfd: no program before this one left its state in a memfd; nothing was loaded"
                )
            return os.dup(fd)  # the table's own stays for another try
        try:
            return open_file(address.path, os.O_RDONLY)
        except OSError as e:
            raise HostError(
                f"cannot open migration file {address.path}: {os.strerror(e.errno or 0)}"
            ) from e

    def check(self) -> None:
        """Read and check all state against this machine; nothing is changed.

        Raises:
            StateError, InstarError: it does not fit; another try is possible.
        """
        try:
            self._check_vm()
            self._check_nonce()
            self._check_ram()
            migration = self._migration
            things = [
                migration.ram_box,
                *self._machine.stateful,
                migration.settings,
                *migration.host.things(),
            ]
            fds = None if self._adopted is None else self._adopted.fds
            loaded = read_sections(self._reader, things, fds)
            self._loaded = migration.with_preview(loaded, self._reader.manifest.info)
            if not self._reader.manifest.bulk:
                self._reader.finish()  # the end mark: a state that is cut short is refused as a whole
        except BaseException:
            os.close(self._fd)
            raise

    def _check_nonce(self) -> None:
        """Refuse a state that another update saved: it and the RAM that was left in place do not belong together."""
        adopted = self._adopted
        if adopted is not None and self._reader.manifest.info.get("nonce") != adopted.info.get(
            "nonce"
        ):
            raise StateCorruptError(
                "manifest: the nonce is not this update's: the state is old or was exchanged; nothing was loaded"
            )

    def _check_vm(self) -> None:
        """Refuse the state of another VM, where it says whose it is."""
        handed = None if self._adopted is None else self._adopted.info.get(KEY)
        self._owner = self._migration.identity.check(self._reader.manifest.info.get(KEY), handed)

    def _check_ram(self) -> None:
        """Refuse a state whose RAM is neither in the stream nor inherited: the guest would find zeros."""
        manifest = self._reader.manifest
        missing = [
            backend
            for backend in self._machine.memory_backends
            if backend.id not in manifest.bulk and not backend.block.adopted
        ]
        if missing and manifest.info.get("left"):
            from instar.migration import left_memory  # noqa: PLC0415 - nobody resumes into this

            info = manifest.info
            left_memory.check(missing, info["left"], info.get("left-nonce"), info.get("left-sums"))
            self._left = missing
            return
        for backend in missing:
            raise StateInvalidError(
                f"{backend.id}: mode {self._reader.manifest.mode} left RAM in place, but this program inherited "
                "no such RAM; nothing was loaded"
            )

    def load(self) -> None:
        """Load RAM, if it is in the stream, then everything else at once; the migration is told how it ended."""
        self._guarded(self._begin if self._reader.manifest.bulk else self._finish)

    def rehearse(self) -> Tried:
        """Apply everything and save it again, in a machine that never runs.

        Raises:
            StateError: What was loaded cannot be saved.
        """
        from instar.migration.again import try_again  # noqa: PLC0415 - nobody resumes into this

        assert self._loaded is not None
        with self._machine.lock:
            tried = try_again(self._loaded, self._reader, self._machine.stateful)
        os.close(self._fd)
        return tried

    def _guarded(self, work: Callable[[], object]) -> None:
        """Do a part of the loading; whatever goes wrong in it, the machine is half loaded."""
        try:
            work()
        except TakenOverError:  # somebody else goes on, and ends this program
            raise
        except Exception as e:
            os.close(self._fd)
            self._migration.incoming_failed(e)

    def _begin(self) -> None:
        copied = [b for b in self._machine.memory_backends if b not in self._left]
        if any(backend.path for backend in copied):
            from instar.migration import left_memory  # noqa: PLC0415 - nobody resumes into this

            left_memory.begin_anew(copied)
        views = {backend.id: backend.block.view for backend in copied}
        for backend in copied:
            backend.block.clear()
        self._reader.load_bulk(views)
        self._go_on()

    def _go_on(self) -> None:
        self._machine.loop.call_soon(lambda: self._guarded(self._turn))

    def _turn(self) -> None:
        if self._reader.step(TURN):
            self._finish()
        else:
            self._go_on()

    def _finish(self) -> None:
        if self._loaded is not None:
            self._end_bridge(self._loaded)
            with self._machine.lock:
                self._loaded.apply()
        loaded = monotonic_ns()
        self.report.add_phase("load", self._built_ns, loaded)
        self._go(loaded)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _end_bridge(self, loaded: Loaded) -> None:
        """Take the vCPUs back from where they ran on; the harts of the state are from before that.

        Raises:
            PeerError: They are gone.
        """
        fd = -1 if self._adopted is None else self._adopted.fds.find(*BRIDGE)
        if fd < 0:
            return
        from instar.migration.bridge_link import Bridge  # noqa: PLC0415 - only where there is one

        reads = {
            cls.state_name: [cls.state_oldest, cls.state_version] for cls in self._vcpu_classes()
        }
        self._machine.vcpus.get_ready()  # while the guest still runs
        try:
            answer = Bridge(fd, 0).take_back(reads)
        except PeerError as e:
            raise PeerError(f"{e}; the guest's vCPUs ran there and are lost with it") from e
        loaded.replace(read_records(answer.get("states"), self._machine.vcpus.harts))
        back_ns = answer.get("stopped-ns")
        self.report.back_ns = back_ns if isinstance(back_ns, int) else monotonic_ns()

    def _vcpu_classes(self) -> set[type[State]]:
        return {thing.state_class for thing in self._machine.vcpus.harts}

    def _go(self, start_ns: int) -> None:
        """Become the owner; run if it ran, else do what it did."""
        before = self._machine.state.runstate
        runs = before == "running" and self._machine.autostart
        if runs:
            self._machine.get_ready()  # while it can still be said that the migration failed
        afterwards = (
            self._note_commit,
            self._machine.resume if runs else lambda: self._stay(before),
            lambda: self._note_end(start_ns, runs=runs),
            self._close,
        )
        self._commit()
        for step in afterwards:
            self._alone(step)
        self._tidy_up()

    def _stay(self, before: str) -> None:
        self._machine.set_runstate(_stopped_state(before))

    def _note_end(self, start_ns: int, *, runs: bool) -> None:
        report = self.report
        if runs:
            report.resumed_ns = monotonic_ns()
            report.prepared = prepared.was_used()
            report.imported = [name for name in sys.modules if name.startswith("instar")]
            report.add_phase("resume", start_ns, report.resumed_ns)
        report.ended_ns = monotonic_ns()

    def _alone(self, work: Callable[[], object]) -> None:
        """Do what follows the commit, twice if need be: the host may have lacked something for a moment.

        The guest is here and nowhere else: nothing of this may end it.
        """
        for again in ("it is tried again", "the guest goes on without it"):
            try:
                work()
            except Exception as e:
                self._complain(e, again)
            else:
                return

    def _complain(self, error: Exception, but: str) -> None:
        try:
            log.error(f"after the update: {error!r}; {but}. Please report it")
        except Exception:
            return  # what a sentence needs is lacking, too

    def _tidy_up(self, tries: int = _TRIES) -> None:
        """Let those go who stood by; what the host refuses is tried again, ``tries`` times, a second apart."""
        try:
            self._migration.incoming_done(self.report)
        except Exception as e:
            if tries == _TRIES:
                self._complain(e, "the guest goes on")
            if tries:
                self._machine.loop.call_later(_AGAIN_NS, lambda: self._tidy_up(tries - 1))

    def _commit(self) -> None:
        """Become the owner of the guest: from here on nobody else goes on with it."""
        if self._left:
            from instar.migration import left_memory  # noqa: PLC0415 - nobody resumes into this

            left_memory.take(self._left, self._reader.manifest.info.get("left-nonce"))
        if self._adopted is not None:
            signals.set_alarm(0)
            self._adopted.commit()

    def _note_commit(self) -> None:
        failed = ""
        if self._adopted is not None:
            self._migration.note_lease()
            failed = self._adopted.failed
        self._migration.identity.become(self._owner)
        self._note_owner(failed)
        self._migration.set_status("failed" if failed else "completed")
        if failed:
            self._migration.status_machine.error = failed
            log.error(f"update: {failed}; the program before goes on")

    def _note_owner(self, failed: str) -> None:
        """Note which program this is: the new one, or the old one again."""
        report = self.report
        report.new_pid = os.getpid()
        if failed:
            report.owner = "old" if report.new_pid == report.old_pid else "old-by-guardian"
            report.end("failed", failed)
        else:
            report.owner, report.new_version = "new", VERSION
            report.end("completed")


_KEPT: Final[tuple[RunState, ...]] = (
    "prelaunch",
    "shutdown",
    "internal-error",
    "io-error",
    "guest-panicked",
    "watchdog",
)


def _stopped_state(before: str) -> RunState:
    for state in _KEPT:
        if before == state:
            return state
    return "paused"


def _inherited_report(adopted: Adopted | None, built_ns: int) -> Report:
    """Go on with the report of the program before, adding how long it took to get here."""
    if adopted is None:
        return Report("normal", VERSION)
    record = adopted.info.get("report")
    report = Report.from_record(record if isinstance(record, dict) else {})  # pyright: ignore[reportUnknownArgumentType]
    if report.phases:
        _, start_ns, took_ns = report.phases[-1]
        report.add_phase("exec", start_ns + took_ns, adopted.started_ns)
    report.add_phase("build", adopted.started_ns, built_ns)
    return report
