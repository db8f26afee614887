"""What an update hands to the next program, and to those who stand by in case that it fails.

Not on the resume path. One object for one update; :mod:`instar.migration.outgoing` calls it row by row.

Source: own; docs/decisions/0008.
"""

from __future__ import annotations

import os
from time import monotonic_ns

from instar import log, signals
from instar.cpr.adopted import BACK, GUARDIAN, KEEPER, LEASE, PREPARED
from instar.cpr.carriers import ExecCarrier, sealed
from instar.cpr.errors import NoKeeperError, StateError, UpdateRefusedError
from instar.cpr.guardian_link import GuardianLink
from instar.cpr.keeper import KEEPERS, Keeper, left
from instar.cpr.lease import WORK, Lease
from instar.cpr.rehearsal import judge
from instar.errors import CommandError
from instar.migration.channels import MAIN_FD
from instar.migration.copies import copy_state, host_things, sentences, terms_for
from instar.migration.first_word import await_first_word
from instar.migration.handcheck import check_unrehearsed
from instar.migration.identity import KEY
from instar.migration.pinned import Pinned
from instar.migration.prediction import predict
from instar.migration.rehearsal import Rehearsal
from instar.migration.saving import host_records, losses_of
from instar.prepared import VARIABLE
from instar.sandbox.notice import is_confined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from instar.cpr.fds import Fds
    from instar.cpr.own import OwnProgram
    from instar.cpr.rehearsal import Answer
    from instar.cpr.state import Record
    from instar.cpr.target import Target
    from instar.migration.bridge import Crossing
    from instar.migration.migration import Migration
    from instar.migration.report import Report

_INIT: Final = 1  # a process that takes its PID namespace along when it ends
_READY_NS: Final = 10_000_000_000
_NO_GUARDIAN: Final = (
    "this program is process 1 of its PID namespace, which ends with it, so there is no guardian: a new program that "
    "crashes or hangs before it goes on takes the guest along; run it under an init that ends last"
)
_KEPT: Final = "the guest was not stopped"
_GRACE_MS: Final = 2000  # the new program's own way back is tried first: it keeps the process


class Handover:
    """The way from this program to the next.

    Args:
        migration: Whose machine it is.
        command: Program and arguments to execute.
        report: What is told about the update.
        budget_ms: Longest pause that may be predicted; 0: any.
        derived: The command was made from what runs.
    """

    def __init__(
        self,
        migration: Migration,
        command: list[str],
        report: Report,
        *,
        budget_ms: int,
        derived: bool,
    ) -> None:
        self._migration = migration
        self._command = command
        self.pinned: Pinned | None = None
        self._report = report
        self._budget_ms = budget_ms
        self._derived = derived
        self._guardian: GuardianLink | None = None
        self._keeper: Keeper | None = None
        self._carrier: ExecCarrier | None = None
        self._lease: Lease | None = None
        self._masked: set[int] | None = None
        self._prepared = -1  # a memfd, for the start of the new program
        self._rehearsal: Rehearsal | None = None
        self._answer: Answer | None = None
        self._old_answer: Answer | None = None
        self._lost: list[str] = []  # fields that have no place in these versions
        self._told: list[str] = []  # about these versions, for people
        self.versions: dict[str, int] = {}  # of states, that the next program reads
        self.save_ns = 0  # how long saving took, for the prediction
        self.nonce = os.urandom(16).hex()  # ties the state to this one update

    @property
    def answer(self) -> Answer | None:
        """What the new program told in its rehearsal, if there was one."""
        return self._answer

    def open_target(self) -> None:
        """Pin the program that will be executed.

        Raises:
            TargetError: It cannot be.
        """
        migration = self._migration
        self.pinned = Pinned(migration.machine.loop, self._command[0], migration.host.exec_allow)
        self._report.program = self.pinned.target.path

    def check_unrehearsed(self) -> None:
        """Check a command that no rehearsal will try.

        Raises:
            CommandError: It could not take over.
        """
        if self.pinned is not None:
            check_unrehearsed(self._migration, self.pinned.target, self._command)

    def close(self) -> None:
        """Forget the program."""
        if self.pinned is not None:
            self.pinned.close()
        self._keep_prepared(b"")

    def begin_digest(self, go_on: Callable[[], object]) -> bool:
        """Read the program for its digest; the rehearsal has told where its release lies.

        Returns:
            Whether there is anything to wait for.
        """
        if self.pinned is None:
            return False
        package = self._answer.release.rpartition("@")[0] if self._answer is not None else ""
        return self.pinned.begin_digest(package, go_on)

    def check_digest(self) -> str:
        """Return the digest.

        Raises:
            TargetError: ``cpr-exec-digest`` is another one.
        """
        if self.pinned is None:
            return ""
        self.pinned.check_digest(self._migration.settings.exec_digest)
        return self.pinned.digest

    # Those who stand by

    def start_guardian(self, go_on: Callable[[], object]) -> bool:
        """Start the guardian, if there is to be one; ``go_on`` is called when it has said something.

        Returns:
            Whether there is anything to wait for.

        Raises:
            UpdateRefusedError: It cannot be started.
        """
        settings = self._migration.settings
        if not settings.guardian:
            return False
        if os.getpid() == _INIT:
            self._report.notes.append(_NO_GUARDIAN)
            return False
        self._guardian = GuardianLink.start()
        self._guardian.socket.settimeout(0)
        loop, fd = self._migration.machine.loop, self._guardian.socket.fileno()
        await_first_word(loop, fd, _READY_NS, go_on)
        return True

    def check_guardian(self) -> None:
        """Refuse if the guardian is not there.

        Raises:
            UpdateRefusedError: It ended, or said nothing.
        """
        if self._guardian is not None:
            self._guardian.check_ready()
            self._guardian.socket.settimeout(None)

    def find_guardian(self) -> None:
        """Refuse if the guardian has ended: nobody would bring the guest back (UpdateRefusedError)."""
        if self._guardian is not None and not self._guardian.is_there:
            raise UpdateRefusedError(f"the guardian has ended; {_KEPT}")

    def dismiss_guardian(self) -> None:
        """Let the guardian go."""
        guardian, self._guardian = self._guardian, None
        if guardian is not None:
            self._migration.machine.loop.unwatch(guardian.socket.fileno())
            guardian.off()

    def start_keeper(self) -> None:
        """Have a task keep this program's memory until the pause is over; where it cannot, a note says why."""
        if not self._migration.settings.keeper:
            return
        try:
            if self._answer is not None and not self._answer.collects:
                raise NoKeeperError(f"{self._command[0]} does not know of such tasks")
            self._keeper = Keeper.start()
        except NoKeeperError as e:
            self._report.notes.append(f"the memory is given back in the pause: {e}")

    def end_keeper(self) -> None:
        """End the task."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.end()

    def _hand_on_keepers(self, fds: Fds) -> list[int]:
        """Return the tasks of which the next program collects the end; one still waits for it."""
        pids = left(self._migration.keepers)
        if self._keeper is not None:
            fds.save(KEEPER, 0, self._keeper.hold, kind="pipe", owner="cpr")
            pids.append(self._keeper.pid)
        return pids

    # Rehearsals

    def rehearse_new(self, go_on: Callable[[], object]) -> None:
        """Start the new program in a rehearsal.

        Args:
            go_on: Called when it has answered.

        Raises:
            CprError, OSError: It cannot be started.
        """
        if self.pinned is not None:
            self._rehearse(self.pinned.target, self._command, self.take_new, go_on)

    def rehearse_older(self, go_on: Callable[[], object]) -> bool:
        """Start it once more, if it reads only older versions of our states: with a copy in these versions.

        What has been tried is what will be written; so this is done whatever it said to the first copy.

        Returns:
            Whether there is anything to wait for.

        Raises:
            UpdateRefusedError: This program does not write what it reads, or what is in use has no place there.
            CprError, OSError: It cannot be started.
        """
        answer = self._answer
        if answer is None:
            return False
        self.end_rehearsal()
        try:
            terms = terms_for(self._migration, answer)
            self.versions = terms.versions
            again = bool(terms.other or terms.left)
            if again:
                self.rehearse_new(go_on)
        except StateError as e:
            raise self._unservable(e, answer) from e
        self._told = sentences(answer.program, terms.other, self._lost, terms.left)
        return again

    def _unservable(self, error: StateError, answer: Answer) -> UpdateRefusedError:
        """Return why the program cannot be served, with what it says itself about the states of this one."""
        why = str(error) if str(error).endswith(_KEPT) else f"{error}; {_KEPT}"
        self._report.new_version = answer.program
        self._report.complaints = [why, *answer.verdict]
        refused = UpdateRefusedError(f"rehearsal of {self._command[0]}: {why}")
        for note in (*answer.verdict, *getattr(error, "__notes__", ())):
            refused.add_note(note)
        return refused

    def judge_new(self) -> None:
        """Take the answer: whether it may.

        Raises:
            UpdateRefusedError: It complained, or would take longer than ``x-update-budget``.
        """
        self.end_rehearsal()
        answer = self._answer
        if answer is None:
            return
        report = self._report
        predicted_ns = predict(report, self.save_ns, answer)
        report.new_version = answer.program
        report.notes += [*self._told, *answer.notes]
        report.complaints = answer.verdict
        if not report.complaints:
            report.predicted_ns = predicted_ns
        judge(answer, self._command[0], _KEPT)
        self._keep_prepared(answer.prepared)
        budget_ms = self._budget_ms
        if budget_ms and predicted_ns > budget_ms * 1_000_000:
            raise UpdateRefusedError(
                f"rehearsal of {self._command[0]}: the pause would be about {predicted_ns / 1e6:.0f} ms, "
                f"x-update-budget is {budget_ms} ms; {_KEPT}"
            )

    def _keep_prepared(self, data: bytes) -> None:
        """Keep what the rehearsal found out for the start proper, which goes without if there is no place for it."""
        if self._prepared >= 0:
            os.close(self._prepared)
            self._prepared = -1
        if data:
            try:
                self._prepared = sealed("instar-prepared", data)
            except OSError as e:
                self._report.notes.append(f"the start is not prepared: {e.strerror}")

    @property
    def needs_old_rehearsal(self) -> bool:
        """Whether the way back has to be tried: the new program is not this very release."""
        settings = self._migration.settings
        answer = self._answer
        return (
            settings.rehearsal
            and settings.way_back
            and answer is not None
            and self._migration.own_program is not None
            and answer.release != self._migration.release
        )

    def rehearse_old(self, go_on: Callable[[], object]) -> None:
        """Start this program, as it would be started on a way back, in a rehearsal; as :meth:`rehearse_new`."""
        own = self._migration.own_program
        if own is not None:
            argv = [*own.words, *self._migration.host.command_words("memfd:")]
            self._rehearse(own.target, argv, self._take_old, go_on)

    def judge_old(self) -> None:
        """Take the answer about the way back, if it was asked for.

        Raises:
            UpdateRefusedError: What lies where this program was cannot take over.
        """
        self.end_rehearsal()
        answer, self._old_answer = self._old_answer, None
        if answer is None:
            return
        judge(answer, "the way back", _KEPT)
        if answer.release != self._migration.release:
            log.warning(
                f"update: this release is not on the disk any more; the way back is what replaced it ({answer.program})"
            )

    def end_rehearsal(self) -> None:
        """End a program that is still trying itself."""
        rehearsal, self._rehearsal = self._rehearsal, None
        if rehearsal is not None:
            rehearsal.stop()

    def take_new(self, answer: Answer) -> None:
        """Keep what the new program has told."""
        self._answer = answer

    def _take_old(self, answer: Answer) -> None:
        self._old_answer = answer

    def _known_words(self) -> list[str]:
        """Return what a command line is compared with.

        One that was written by hand need not name what was added or changed at run time: state carries that.
        """
        host = self._migration.host
        return host.command_words("memfd:") if self._derived else host.began_words("memfd:")

    def _rehearse(
        self,
        target: Target,
        argv: list[str],
        take: Callable[[Answer], object],
        go_on: Callable[[], object],
    ) -> None:
        def answered(answer: Answer) -> None:
            take(answer)
            go_on()

        migration = self._migration
        limit_ns = 2 * migration.settings.timeout_ms * 1_000_000  # more than an update may take
        rehearsal = Rehearsal(migration.machine.loop, target, argv, limit_ns, answered)
        copy = copy_state(migration, self.nonce, self.versions)
        fds = copy.fds
        if migration.machine.running:
            self._report.held_ns += copy.held_ns
        copied_ns = monotonic_ns()
        try:
            fds.save(*MAIN_FD, copy.memfd, kind="memfd", owner="migration")
            migration.host.save_fds(fds)
            things = host_things(migration, self.versions, peek=True)
            self._lost = [*copy.lost, *losses_of(things, self.versions, _KEPT)]
            host_state = host_records(things, fds, self.versions, peek=True)
            self.save_ns = copy.took_ns + monotonic_ns() - copied_ns
            info: Record = {
                "host": host_state,
                "versions": dict(self.versions),
                "nonce": self.nonce,
                KEY: migration.identity.to_record(),
                "config": list(self._known_words()),
            }
            rehearsal.start(fds, info)
        finally:
            os.close(copy.memfd)
        self._rehearsal = rehearsal

    # The hand-over itself, in one turn of the main loop: what came in between would be lost

    def prepare(self, fds: Fds, main: int, report: Report, bridge: Crossing) -> None:
        """Write down all that the next program gets, and give it to the guardian too.

        Args:
            fds: A table of this update's own; the rest is added to it.
            main: The memfd with the machine's state.
            report: The figures so far.
            bridge: Who has the vCPUs, if there is one.

        Raises:
            CommandError: A signal told this program to end.
            CprError, OSError: It cannot be written down, or the guardian is gone.
        """
        # A signal between the two programs would find no handler and kill the guest; it waits for the new program.
        self._masked = signals.hold_ending()
        if signals.told_to_end():  # in this very turn, so the loop did not come to it
            raise CommandError("a signal told the program to end")
        if self.pinned is None:
            raise CommandError("no program was opened")
        migration = self._migration
        fds.save(*MAIN_FD, main, kind="memfd", owner="migration")
        if self._prepared >= 0:
            fds.save(PREPARED, 0, self._prepared, kind="memfd", owner="cpr")
        lease = self._hold_lease(fds)
        migration.notifiers.done("cpr-exec")
        self._carrier = ExecCarrier(self.pinned.target, self._command)
        migration.host.save_fds(fds)
        # In this very turn: nobody reads from a client after its monitor was saved.
        host_state = host_records(host_things(migration, self.versions), fds, self.versions)
        info: Record = {
            "report": report.to_record(),
            "host": host_state,
            "nonce": self.nonce,
            KEY: migration.identity.to_record(),
            "pid": os.getpid(),
            "count": lease.count,
            "limit-ms": migration.settings.timeout_ms,
            "exec-allow": list(migration.host.exec_allow),
            "sandbox": is_confined(),
            KEEPERS: list(self._hand_on_keepers(fds)),
        }
        bridge.hand_on(fds, info)
        own = migration.own_program
        if own is not None and migration.settings.way_back:
            fds.save(BACK, 0, own.target.fd, kind="program", owner="cpr")
            argv = [*own.words, *migration.host.command_words("memfd:")]
            info["back"] = {"argv": list(argv), "path": own.target.path}
            self._arm(fds, info, own, argv, lease)
        else:
            self._carrier.save(fds, info)

    def _hold_lease(self, fds: Fds) -> Lease:
        """Return the lease of the guest, which this program holds."""
        lease = Lease(fds.find(LEASE, 0))
        if not lease.lock(WORK):
            raise UpdateRefusedError("another program holds the lease of this guest")
        return lease

    def _arm(self, fds: Fds, info: Record, own: OwnProgram, argv: list[str], lease: Lease) -> None:
        assert self._carrier is not None
        guardian = self._guardian
        if guardian is None:
            self._carrier.save(fds, info)
            return
        fds.save(GUARDIAN, 0, guardian.socket.fileno(), kind="socket", owner="cpr")
        info["guardian"] = guardian.pid
        self._carrier.save(fds, info)
        order: Record = {
            "program": own.target.fd,
            "argv": argv,
            "lease": lease.fd,
            "count": lease.count,
            "limit-ms": self._migration.settings.timeout_ms + _GRACE_MS,
        }
        guardian.arm(self._carrier.descriptors, order)

    def execute(self) -> None:
        """Become the next program; returns only by an exception."""
        if self._carrier is not None:
            number = {VARIABLE: str(self._prepared)} if self._prepared >= 0 else {}
            self._carrier.execute({**os.environ, **number})

    def drop(self) -> None:
        """Take the hand-over back."""
        if self._masked is not None:
            signals.restore(self._masked)
            self._masked = None
        if self._carrier is not None:
            self._carrier.drop()
            self._carrier = None
