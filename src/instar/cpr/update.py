"""One update of a plain program, in the old one: the table, and who does it.

Not on the resume path. Source: own; docs/decisions/0008.
"""

from __future__ import annotations

import os

from instar.cpr.adopted import BACK, GUARDIAN, KEEPER, LEASE
from instar.cpr.carriers import ExecCarrier
from instar.cpr.engine import MODE, STREAM
from instar.cpr.errors import (
    DescriptorError,
    NoKeeperError,
    StateError,
    TargetError,
    UpdateRefusedError,
)
from instar.cpr.guardian_link import GuardianLink
from instar.cpr.keeper import KEEPERS, Keeper, left
from instar.cpr.lease import WORK, Lease
from instar.cpr.lifecycle import Row, Run, Table
from instar.cpr.losses import check_writable, differing, losses
from instar.cpr.own import stamp
from instar.cpr.rehearsal import Answer, Child, judge
from instar.cpr.state import inner, save
from instar.cpr.target import Target
from instar.cpr.trial import hold_signals, let_in
from instar.cpr.versions import versions_for
from instar.cpr.writer import Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

    from instar.cpr.engine import Engine
    from instar.cpr.fds import Fds
    from instar.cpr.state import Record

UPDATE: Final = Table(
    Row("prepare", "find-target", "open_target", "close_target"),
    Row("prepare", "find-way-back", "check_own"),
    Row("prepare", "check-descriptors", "check_descriptors"),
    Row("prepare", "ask-blockers", "check_blockers"),
    Row("prepare", "tell-listeners", "notify_setup", "notify_failed"),
    Row("rehearse", "guardian", "start_guardian", "dismiss_guardian"),
    Row("rehearse", "new-program", "rehearse_new"),
    Row("rehearse", "way-back", "rehearse_way_back"),
    Row("rehearse", "guardian-ready", "check_guardian"),
    Row("rehearse", "guardian-given", "give_guardian"),
    Row("rehearse", "keeper", "start_keeper", "end_keeper"),
    Row("stop", "hold-signals", "hold_signals", "let_signals_in"),
    Row("stop", "stop-work", "stop_work", "resume_work"),
    Row("save", "save-state", "save_state", "drop_state"),
    Row("save", "save-descriptors", "save_descriptors", "drop_descriptors"),
    Row("exec", "arm", "arm_guardian"),
    Row("exec", "execute", "execute"),
)
CHECK: Final = Table(
    Row("prepare", "find-target", "open_target", "close_target"),
    Row("prepare", "find-way-back", "check_own"),
    Row("prepare", "check-descriptors", "check_descriptors"),
    Row("prepare", "ask-blockers", "check_blockers"),
    Row("rehearse", "new-program", "rehearse_new"),
    Row("rehearse", "way-back", "rehearse_way_back"),
)
_INIT: Final = 1  # a process that takes its PID namespace along when it ends
_READY_S: Final = 10
_GRACE_MS: Final = 2000  # the new program's own way back is tried first: it keeps the process
_KEPT: Final = "nothing changed"


def become(
    engine: Engine, argv: list[str], *, limit_ms: int, rehearse: bool | Answer, guardian: bool
) -> NoReturn:
    """Do the whole update, as :meth:`instar.cpr.engine.Engine.update` says; returns only by raising."""
    update = _Update(engine, argv, limit_ms)
    if isinstance(rehearse, Answer):
        update.answer = rehearse
    update.rehearse = rehearse is True
    update.guarded = guardian and os.getpid() != _INIT
    update.run.run()
    raise AssertionError("an update ends in another program")


def check(engine: Engine, argv: list[str], *, limit_ms: int) -> Answer:
    """Rehearse an update, as :meth:`instar.cpr.engine.Engine.check` says."""
    update = _Update(engine, argv, limit_ms)
    Run(CHECK, update).run()
    update.close_target()
    return update.answer


class _Update:
    # One attempt: the actor of the tables. Each undo brings back what was before, however far its action came.

    def __init__(self, engine: Engine, argv: list[str], limit_ms: int) -> None:
        self.rehearse = True
        self.guarded = False
        self.answer = Answer()
        self.run = Run(UPDATE, self)
        self._engine = engine
        self._argv = argv
        self._limit_ms = limit_ms
        self._versions: dict[str, int] = {}  # of states, that the new program reads
        self._lost: list[str] = []
        self._target: Target | None = None
        self._carrier: ExecCarrier | None = None
        self._guardian: GuardianLink | None = None
        self._keeper: Keeper | None = None
        self._notes: list[str] = []
        self._lease: Lease | None = None
        self._held: list[int] = []
        self._stream = -1
        self._fds = engine.fds  # replaced by a copy, so that undoing is forgetting

    # prepare

    def open_target(self) -> None:
        self._target = Target.open(self._argv[0])

    def close_target(self) -> None:
        if self._target is not None:
            self._target.close()

    def check_own(self) -> None:
        try:
            self._engine.own.target.check()
        except TargetError as exc:
            raise UpdateRefusedError(f"the way back is lost: {exc}; {_KEPT}") from exc

    def check_descriptors(self) -> None:
        try:
            self._fds.verify()
            self._fds.verify_members()
        except DescriptorError as exc:
            raise UpdateRefusedError(str(exc)) from exc

    def check_blockers(self) -> None:
        self._engine.blockers.check(MODE)

    def notify_setup(self) -> None:
        self._engine.notifiers.setup(MODE)

    def notify_failed(self) -> None:
        self._engine.notifiers.failed(MODE)

    # rehearse

    def start_guardian(self) -> None:
        if self.guarded:
            self._guardian = GuardianLink.start()
            self._guardian.socket.settimeout(_READY_S)

    def dismiss_guardian(self) -> None:
        guardian, self._guardian = self._guardian, None
        if guardian is not None:
            guardian.off()

    def check_guardian(self) -> None:
        if self._guardian is not None:
            self._guardian.check_ready()
            self._guardian.socket.settimeout(None)

    def give_guardian(self) -> None:
        if self._guardian is not None:
            self._guardian.give(self._fds.members())

    def rehearse_new(self) -> None:
        answer = self._hear_new() if self.rehearse else self.answer
        judge(answer, self._argv[0], _KEPT)
        self.answer = answer
        self._versions = versions_for(answer.reads)
        if self._differ(self._versions):
            self._lost = self._losses()

    def _hear_new(self) -> Answer:
        assert self._target is not None
        answer = self._try(self._target, self._argv)
        wanted = versions_for(answer.reads)
        if answer.complaints and self._differ(wanted):  # it is older: once more, in its words
            self._versions = wanted
            try:
                self._check_writable()
                answer = self._try(self._target, self._argv)
            except StateError as exc:
                raise self._unwritable(exc, answer) from exc
        return answer

    def _check_writable(self) -> None:
        for object_id, live in self._engine.states.items():
            check_writable(object_id, type(live), self._versions, self._engine.version, _KEPT)

    def _unwritable(self, why: StateError, answer: Answer) -> UpdateRefusedError:
        end = "" if str(why).endswith(_KEPT) else f"; {_KEPT}"
        error = UpdateRefusedError(f"rehearsal of {self._argv[0]}: {why}{end}")
        for note in (*answer.verdict, *getattr(why, "__notes__", ())):
            error.add_note(note)
        return error

    def rehearse_way_back(self) -> None:
        own, version = self._engine.own, self._engine.version
        assert self._target is not None
        same = self._argv == own.argv and stamp(self._target) == own.stamp
        if not self.rehearse or (same and self.answer.program == version):
            return  # what would be executed is what has just been tried
        answer = self._try(own.target, own.argv)
        judge(answer, "the way back", _KEPT)
        if answer.program != version:
            raise UpdateRefusedError(
                f"the way back is version {answer.program} by now, this is {version}; {_KEPT}"
            ).hint(
                "install a new version beside the old one, or replace an executable script as a whole"
            )

    def start_keeper(self) -> None:
        try:
            if self.answer.program and not self.answer.collects:
                raise NoKeeperError(f"{self._argv[0]} does not know of such tasks")
            self._keeper = Keeper.start()
        except NoKeeperError as exc:
            self._notes.append(f"the memory is given back in the pause: {exc}")

    def end_keeper(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.end()

    def _try(self, target: Target, argv: list[str]) -> Answer:
        try:
            self._engine.stop()
            fds, memfd = self._write_state()
        finally:
            self._engine.resume()
        try:
            child = Child.start(target, argv, (fds, {"limit-ms": self._limit_ms}))
        finally:
            os.close(memfd)
        try:
            return child.wait(self._limit_ms * 1_000_000)
        finally:
            child.stop()

    def _differ(self, versions: dict[str, int]) -> bool:
        """Does the reader want any of our states in another version than the current one?"""
        return any(differing(type(live), versions) for live in self._engine.states.values())

    def _losses(self) -> list[str]:
        return [
            f"field {object_id}.{path}"
            for object_id, live in self._engine.states.items()
            for path in losses(
                live, self._version(live.state_name, live.state_version), self._versions
            )
        ]

    # stop, save

    def hold_signals(self) -> None:
        self._held = hold_signals()

    def let_signals_in(self) -> None:
        let_in(self._held)

    def stop_work(self) -> None:
        self._engine.stop()

    def resume_work(self) -> None:
        self._engine.resume()

    def save_state(self) -> None:
        self._fds, self._stream = self._write_state()

    def drop_state(self) -> None:
        if self._stream >= 0:
            os.close(self._stream)

    def save_descriptors(self) -> None:
        assert self._target is not None
        own = self._engine.own
        self._fds.save(BACK, 0, own.target.fd, kind="program", owner="cpr")
        info: Record = {
            "phases": self.run.snapshot(),
            "limit-ms": self._limit_ms,
            "pid": os.getpid(),
            "held": list(self._held),
            "lost": list(self._lost),
            "notes": list(self._notes),
            KEEPERS: list(self._hand_on_keepers()),
            "back": {"argv": list(own.argv), "path": own.target.path},
        }
        self._lease = Lease.create()
        self._lease.lock(WORK)
        self._fds.save(LEASE, 0, self._lease.fd, kind="lease", owner="cpr")
        info["count"] = self._lease.count
        if self._guardian is not None:
            self._fds.save(GUARDIAN, 0, self._guardian.socket.fileno(), kind="socket", owner="cpr")
            info["guardian"] = self._guardian.pid
        self._carrier = ExecCarrier(self._target, self._argv)
        self._carrier.save(self._fds, info)

    def _hand_on_keepers(self) -> list[int]:
        pids = left(self._engine.keepers)
        if self._keeper is not None:
            self._fds.save(KEEPER, 0, self._keeper.hold, kind="pipe", owner="cpr")
            pids.append(self._keeper.pid)
        return pids

    def drop_descriptors(self) -> None:
        if self._carrier is not None:
            self._carrier.drop()
        if self._lease is not None:
            os.close(self._lease.fd)

    def _write_state(self) -> tuple[Fds, int]:
        """Return a table of its own and a memfd, with all that goes on, in the versions that the reader wants."""
        fds = self._engine.fds.copy()
        memfd = os.memfd_create("instar-state", os.MFD_CLOEXEC)
        try:
            writer = Writer(memfd, program=self._engine.version, mode=MODE)
            for object_id, live in self._engine.states.items():
                version = self._version(live.state_name, live.state_version)
                record = save(live, version, fds=fds, owner=object_id, versions=self._versions)
                inside = {
                    name: self._version(name, cls.state_version)
                    for name, cls in inner(type(live), version).items()
                }
                writer.add(object_id, live.state_name, version, record, inside)
            writer.finish()
            fds.save(STREAM, 0, memfd, kind="state", owner="cpr")
        except BaseException:
            os.close(memfd)
            raise
        return fds, memfd

    def _version(self, name: str, current: int) -> int:
        return self._versions.get(name, current)

    # exec

    def arm_guardian(self) -> None:
        if self._guardian is None or self._lease is None or self._carrier is None:
            return
        own = self._engine.own
        order: Record = {
            "program": own.target.fd,
            "argv": list(own.argv),
            "lease": self._lease.fd,
            "count": self._lease.count,
            "limit-ms": self._limit_ms + _GRACE_MS,
        }
        self._guardian.arm(self._carrier.descriptors, order, self._fds.members())

    def execute(self) -> None:
        assert self._carrier is not None
        self._engine.notifiers.done(MODE)
        self._carrier.execute(os.environ)
