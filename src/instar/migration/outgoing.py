"""The old program's half of a migration: a table of steps, each with its way back.

The table is walked from the main loop, one row a turn, so monitors are served in between, except from the first saved
state to exec: input taken then would be lost. Whatever fails, the rows that were begun are undone in reverse and the
guest goes on. Not on the resume path.

Source: own; order of events and texts as QEMU's.
"""

from __future__ import annotations

import os
from time import monotonic_ns

from instar import log
from instar._version import VERSION
from instar.cpr.errors import CprError
from instar.cpr.lifecycle import AGAIN, WAIT, Run, Table
from instar.cpr.own import check_release
from instar.cpr.writer import Writer, data_extents
from instar.errors import CommandError, HostError, InstarError
from instar.migration.bridge import Crossing
from instar.migration.copies import guest_things
from instar.migration.handcheck import check_meeting_point
from instar.migration.handover import Handover
from instar.migration.identity import KEY
from instar.migration.main_channel import MainChannel
from instar.migration.prediction import bias_after
from instar.migration.report import Report
from instar.migration.saving import write_sections
from instar.migration.tables import CHECK, EXEC, NORMAL
from instar.sandbox.notice import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from instar.cpr.lifecycle import PhaseEvent
    from instar.cpr.state import Record
    from instar.machine.parts import MemoryBackend
    from instar.migration.channels import Address
    from instar.migration.migration import Migration
    from instar.migration.parameters import Mode
    from instar.migration.report import Outcome

_UNREHEARSED: Final = (
    "no rehearsal: states are written in this program's versions, an older one may refuse them"
)


class Outgoing:
    """One migration of a machine to a file, or of its monitor to another program.

    Args:
        migration: Whose machine it is.
        address: Where the state goes.
        table: The steps; default: those of its mode.
        command: Program and arguments to execute in mode cpr-exec; None: mode and command are as the parameters say.
        check: Only try it.
        budget_ms: Longest pause that may be predicted; 0: any; -1: as the parameter says.

    Public methods without arguments are the actions and undos of the tables above.
    """

    def __init__(
        self,
        migration: Migration,
        address: Address,
        table: Table | None = None,
        *,
        command: list[str] | None = None,
        check: bool = False,
        budget_ms: int = -1,
    ) -> None:
        settings = migration.settings
        self._migration = migration
        self._machine = migration.machine
        # Fixed now: changing a parameter later does not reach us.
        self._mode: Mode = settings.mode if command is None else "cpr-exec"
        self._command = list(settings.command if command is None else command)
        self._derived = command is not None
        self._address = address
        self.report = Report(self._mode, VERSION)
        self.report.check = check
        self.report.bias = bias_after(migration.report)
        self.report.began_ns = monotonic_ns()
        self.report.old_pid = self.report.new_pid = os.getpid()
        budget_ms = settings.budget_ms if budget_ms < 0 else budget_ms
        self._handover = Handover(
            migration, self._command, self.report, budget_ms=budget_ms, derived=self._derived
        )
        self._crossing = Crossing(migration, self.report)
        self._main = MainChannel(address)
        self._fds = migration.fds
        if table is None:
            table = CHECK if check else EXEC if self._leaves else NORMAL
        self._run = Run(table, self, emit=self._phase, begin=self._phase_begun)

    def start(self) -> None:
        """Do what is done while the guest runs; the rest follows from the main loop.

        Raises:
            InstarError, CprError: refused; the guest never stopped and nothing is left behind.
        """
        if self._is_update:  # until this is a migration that clients see
            self._migration.side_report = self.report
        try:
            while self._run.advance() != "waiting":
                pass
        except CprError as e:
            self._failed(e)
            own = _own(e)
            raise own from own.__cause__  # the engine's wrapping alone is left away
        self._go_on()

    def go_on_from_pre_switchover(self) -> None:
        """Leave the state pre-switchover."""
        self._go_on()

    def cancel(self) -> None:
        """Undo everything; the guest goes on if it ran."""
        if self.report.check:
            self._undo_check()
            return
        self._migration.set_status("cancelling")
        try:
            self._run.cancel()
        except BaseExceptionGroup as e:  # an undo failed; the others were done
            log.error(f"cancelling the migration: {e.exceptions[-1]}")
        log.release()
        if self._migration.status == "cancelling":  # before the stop there was no guest to resume
            self._migration.set_status("cancelled")
        self._end("cancelled", "it was cancelled")

    @property
    def under_way(self) -> bool:
        """Whether this goes on, even if only as a check that is no migration."""
        return self.report.outcome == "running" and self._run.status in ("again", "waiting")

    def _go_on(self) -> None:
        self._run.proceed()
        self._machine.loop.call_soon(self._turn)

    def _turn(self) -> None:
        try:
            status = self._run.advance()
            while status == "again" and self._migration.status == "device" and self._leaves:
                status = self._run.advance()
        except Exception as e:
            self._failed(e)
            return
        if status == "again":
            self._machine.loop.call_soon(self._turn)

    @property
    def _leaves(self) -> bool:
        """Whether this program is replaced at the end."""
        return self._mode == "cpr-exec"

    @property
    def _is_update(self) -> bool:
        """Whether another program goes on with the guest at once: phases and the end have events of their own."""
        return self._mode in ("cpr-exec", "cpr-transfer")

    def _failed(self, error: Exception) -> None:
        log.release()
        migration = self._migration
        reason = "; ".join(explained(_own(part)) for part in _parts(error))
        if not self.report.check:
            if migration.status_machine.in_progress:
                migration.set_status("failed")
            if migration.status == "failed":
                migration.status_machine.error = reason
        before_stop = isinstance(error, CprError) and error.phase in ("prepare", "rehearse")
        self._end("refused" if before_stop else "failed", reason)

    def _end(self, outcome: Outcome, reason: str = "") -> None:
        """Tell how an update ended that this program has survived."""
        self.report.end(outcome, reason)
        if self._is_update:
            name = "UPDATE_CHECKED" if self.report.check else "UPDATE_FAILED"
            self._migration.emit(name, self.report.update_info())

    def _phase_begun(self, name: str) -> None:
        if self._is_update:
            self._migration.emit("UPDATE_PHASE", {"phase": name, "status": "begun"})

    def _phase(self, event: PhaseEvent) -> None:
        self.report.add_phases([event])
        if self._is_update:
            status = "failed" if event.failed and self.report.outcome == "running" else "done"
            data = {"phase": event.phase, "status": status, "us": event.took_ns // 1000}
            self._migration.emit("UPDATE_PHASE", data)

    # prepare: the guest runs

    def check_blockers(self) -> None:
        """Refuse when something cannot cross in this mode."""
        self._migration.blockers.check(self._mode)

    def open_target(self) -> None:
        """Pin the program that will be executed."""
        if not self._leaves:
            return
        if not self._command:
            raise CommandError("cpr-exec mode requires setting cpr-exec-command")
        check_release()
        self._handover.open_target()
        if self._derived:
            return
        if not self._migration.settings.rehearsal:
            self._handover.check_unrehearsed()
        check_meeting_point(self._command, self._address)

    def close_target(self) -> None:
        """Forget the program."""
        self._handover.close()

    def notify_setup(self) -> None:
        """Ask everybody who may object."""
        self._migration.notifiers.setup(self._mode)

    def notify_failed(self) -> None:
        """Tell those who were asked that it is off."""
        self._migration.notifiers.failed(self._mode)

    def begin_setup(self) -> None:
        """From here on this is a migration that clients see."""
        self._migration.report = self.report
        self._migration.side_report = None
        self._migration.set_status("setup")

    def open_channel(self) -> None:
        """Open the main channel and make sure that there is room."""
        self._main.open(along=self._leaves, reserve=self._mode != "normal")

    def close_channel(self) -> None:
        """Close the channel; remove a file that this migration made, give one that was there its size back."""
        self._main.close()

    def leave_to_loop(self) -> str:
        """Answer the client; the main loop goes on."""
        self.report.setup_ns = monotonic_ns()
        return WAIT

    # rehearse: the guest runs

    def ask_permission(self) -> str | None:
        """Have a child find out whether the program may be executed here."""
        if self._handover.pinned is None:
            return None
        self._handover.pinned.ask(self._go_on)
        return WAIT

    def check_permission(self) -> None:
        """Refuse if it may not."""
        if self._handover.pinned is not None:
            self._handover.pinned.check_permission()

    def end_asking(self) -> None:
        """End the child that tries."""
        if self._handover.pinned is not None:
            self._handover.pinned.end_asking()

    def start_guardian(self) -> str | None:
        """Start who brings the guest back if all else fails."""
        return WAIT if self._handover.start_guardian(self._go_on) else None

    def check_guardian(self) -> None:
        """Refuse if it is not there."""
        self._handover.check_guardian()

    def dismiss_guardian(self) -> None:
        """Let it go."""
        self._handover.dismiss_guardian()

    def rehearse_new(self) -> str | None:
        """Let the new program try itself."""
        if not self._leaves:
            return None
        if not self._migration.settings.rehearsal:
            self.report.notes.append(_UNREHEARSED)
            return None
        self._handover.rehearse_new(self._go_on)
        return WAIT

    def rehearse_older(self) -> str | None:
        """Let it try itself once more, with older versions of states, if it reads only these."""
        return WAIT if self._handover.rehearse_older(self._go_on) else None

    def judge_new(self) -> None:
        """Refuse if it could not take over, or would take too long."""
        self._handover.judge_new()

    def rehearse_old(self) -> str | None:
        """Let this program, as it is on the disk, try itself: the way back."""
        if not self._handover.needs_old_rehearsal:
            return None
        self._handover.rehearse_old(self._go_on)
        return WAIT

    def judge_old(self) -> None:
        """Refuse if there is no way back."""
        self._handover.judge_old()

    def begin_digest(self) -> str | None:
        """Read all of the program."""
        return WAIT if self._handover.begin_digest(self._go_on) else None

    def check_digest(self) -> None:
        """Refuse if it is not the one that was asked for."""
        self.report.digest = self._handover.check_digest()

    def end_digest(self) -> None:
        """Stop reading."""
        if self._handover.pinned is not None:
            self._handover.pinned.end_digest()

    def start_keeper(self) -> None:
        """Have somebody keep this program's memory until the pause is over."""
        self._handover.start_keeper()

    def end_keeper(self) -> None:
        """End that one."""
        self._handover.end_keeper()

    def end_rehearsal(self) -> None:
        """End a program that is trying itself."""
        self._handover.end_rehearsal()

    def start_bridge(self) -> str | None:
        """Start who runs the vCPUs while there is no monitor, if that is wanted."""
        handover = self._handover
        target = handover.pinned.target if handover.pinned is not None else None
        begun = self._crossing.start(target, self._command, handover.answer, self._go_on)
        return WAIT if begun else None

    def check_bridge(self) -> None:
        """Go on without it if it is not there."""
        self._crossing.check()

    def end_bridge(self) -> None:
        """End it."""
        self._crossing.end()

    def find_guardian(self) -> None:
        """Refuse if the guardian has ended meanwhile: the guest has not been stopped yet."""
        self._handover.find_guardian()

    def end_check(self) -> str:
        """Nothing stands against it: that was all that was asked. In the next turn all is undone."""
        self.report.end("ready")
        self._machine.loop.call_soon(self._undo_check)
        return AGAIN

    def _undo_check(self) -> None:
        ready = self.report.outcome == "ready"
        try:
            undone = self._run.cancel()
        except BaseExceptionGroup as e:  # an undo failed; the others were done
            undone = True
            log.error(f"undoing a check: {e.exceptions[-1]}")
        if undone:
            self._end("ready" if ready else "cancelled", "" if ready else "it was cancelled")

    # stop

    def stop_vm(self) -> None:
        """Stop the guest, remembering what it did."""
        log.hold()  # nothing is written while the guest stands still
        self._machine.note_runstate()
        if self._machine.running:
            self.report.stopped_ns = monotonic_ns()
        self._machine.handed_out = False
        self._machine.halt("finish-migrate")
        if self._machine.unfinished:
            raise HostError("; ".join(self._machine.unfinished))

    def resume_vm(self) -> None:
        """Let the guest go on as before."""
        self._migration.set_status(
            "cancelled" if self._migration.status == "cancelling" else "failed"
        )
        self._machine.go_back()

    def go_over(self) -> None:
        """Let the vCPUs go on in the bridge's helper; what belongs to devices stays here."""
        self._crossing.go_over(self._handover.versions)

    def come_back(self) -> None:
        """Take the vCPUs back."""
        self._crossing.come_back()

    # save: the guest stands still, or runs where no device is

    def begin_active(self) -> None:
        """Tell that the state is being moved; the second pass is QEMU's last one."""
        self._migration.set_status("active")
        self._migration.emit("MIGRATION_PASS", {"pass": 2})

    def wait_if_asked(self) -> str | None:
        """Stay here until ``migrate-continue`` with the capability pause-before-switchover."""
        if not self._migration.settings.capabilities["pause-before-switchover"]:
            return None
        self._migration.set_status("pre-switchover")
        log.release()  # somebody decides when it goes on: that may take long
        return WAIT

    def save_devices(self) -> None:
        """Collect all state and name the descriptors that go along."""
        log.hold()
        self._migration.set_status("device")
        migration = self._migration
        self._fds = migration.fds.copy()
        self._writer = Writer(
            self._main.fd,
            offset=self._main.offset,
            program=VERSION,
            mode=self._mode,
            info=self._manifest_info(),
        )
        things = guest_things(migration)
        write_sections(self._writer, things, self._fds, self._handover.versions)
        self._machine.handed_out = True
        for backend in self._copied():
            block = backend.block
            extents = data_extents(block.fd, block.size) if block.fd >= 0 else None
            self._writer.add_bulk(backend.id, block.view, extents)
            self.report.ram_bytes += backend.size

    def _copied(self) -> Sequence[MemoryBackend]:
        """Return the memories that go into the stream."""
        return self._machine.memory_backends if self._mode == "normal" else ()

    def _manifest_info(self) -> Record:
        """Return what the manifest says beside the program and the mode."""
        nonce: Record = {"nonce": self._handover.nonce} if self._leaves else {}
        return {**nonce, KEY: self._migration.identity.to_record()}

    def write_some(self) -> str | None:
        """Write one turn's worth to the channel."""
        if not self._main.write_some(self._writer):
            return AGAIN
        self.report.transferred = self._writer.written
        return None

    # exec

    def arm(self) -> None:
        """Write down what the next program gets; from here on the guardian would start this one again."""
        self._handover.prepare(self._fds, self._main.memfd, self.report, self._crossing)

    def execute(self) -> None:
        """Replace this program; returns only by an exception."""
        log.release()  # what was held would end with this program
        self._handover.execute()

    def drop_carrier(self) -> None:
        """Take the hand-over back."""
        self._handover.drop()

    # mode normal

    def complete(self) -> None:
        """Give the disks up for the other side and end; the machine stays stopped."""
        self._main.sync()
        self._machine.release_disks()
        self._main.keep()  # from here on it is worth something: a disk that could not be given up has undone it
        self._machine.set_runstate("postmigrate")
        self.report.ended_ns = monotonic_ns()
        self._migration.notifiers.done(self._mode)
        self._migration.set_status("completed")
        log.release()


def _parts(error: Exception) -> Sequence[Exception]:
    """Return the error, or, where undoing failed too, what failed first and then the undoing."""
    return error.exceptions if isinstance(error, ExceptionGroup) else (error,)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


def _own(error: Exception) -> Exception:
    """Return our own error, which says it all, where the engine wrapped it."""
    return error.__cause__ if isinstance(error.__cause__, InstarError) else error
