"""The engine for plain programs: keep some state and descriptors, become a new version, go on.

::

    engine = Engine("1.4")
    counter = engine.state("counter", Counter)     # as the old program left it, or fresh
    if counter.listener < 0: ...                    # first start: open what the state has room for
    engine.ready()                                  # from here on the program serves
    ...
    engine.update([program, *arguments])            # between two requests; returns only by raising

Until ``ready()`` nothing is decided: a new program that raises, ends or is too slow gives way to the old one, which is
executed again with everything that it had; one that is lost altogether is replaced by the old one too, in a new
process. Before all that the new program tries itself beside the old one, with a copy of the state: a rehearsal.
"""

from __future__ import annotations

import os
import sys
from time import monotonic_ns

from instar.cpr.adopted import LEASE, REHEARSAL, Adopted, adopt, adopt_for_rehearsal
from instar.cpr.blockers import Blockers
from instar.cpr.errors import (
    PeerError,
    StateCorruptError,
    StateError,
    TakenOverError,
    TargetError,
    UpdateRefusedError,
)
from instar.cpr.fds import Fds
from instar.cpr.lifecycle import PhaseEvent, phases_from
from instar.cpr.notifiers import Notifiers
from instar.cpr.own import ThisProgram
from instar.cpr.state import State, load
from instar.cpr.stream import Reader
from instar.cpr.trial import Trial, let_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from typing import Final, Literal, NoReturn, TypeVar

    from instar.cpr.rehearsal import Answer

    S = TypeVar("S", bound=State)
    By = Literal["exec", "way-back", "guardian"]

MODE: Final = "cpr-exec"
STREAM: Final = "cpr/state"  # the name of the memfd with the stream
LIMIT_MS: Final = 10_000
_INTERNAL: Final = ("cpr/", "rehearsal/")  # how names of the engine's own descriptors begin
_NOT_PAUSED: Final = ("prepare", "rehearse")


class Report:
    """What an update did.

    Attributes:
        old, new: Versions: which wrote the state, and which goes on with it.
        phases: What took how long.
        notes: What else people should know.
        lost: What does not go on: states and descriptors that nobody asked for, fields that this version cannot have.
        failed: Why the update failed; "" if it did not.
        by: How this program came to be: executed by the old one, by a new one that gave up, or by the guardian, as
            another process.
    """

    __slots__ = ("by", "failed", "lost", "new", "notes", "old", "phases")

    def __init__(self, old: str, new: str, phases: list[PhaseEvent], lost: list[str]) -> None:
        self.old = old
        self.new = new
        self.phases = phases
        self.lost = lost
        self.notes: list[str] = []
        self.failed = ""
        self.by: By = "exec"

    @property
    def pause_ns(self) -> int:
        """From the begin of the stop to the end of the load, ns; 0 if the old program told nothing."""
        return sum(event.took_ns for event in self.phases if event.phase not in _NOT_PAUSED)

    def __str__(self) -> str:
        parts = ", ".join(
            f"{e.phase} {e.took_ns / 1e6:.1f}" for e in self.phases if e.phase not in _NOT_PAUSED
        )
        pause = f"pause {self.pause_ns / 1e6:.1f} ms ({parts})"
        if not self.failed:
            return f"update {self.old} -> {self.new}: {pause}"
        where = f" as process {os.getpid()}" if self.by == "guardian" else ""
        return f"update failed: {self.failed}; version {self.new} goes on{where}: {pause}"


class Engine:
    """Keeps a program's state and descriptors through updates of itself.

    Args:
        version: Of this program, for reports.
        stop: Called when the pause begins (and, for a moment, when the state is copied for a rehearsal): park threads,
            finish requests. Raising aborts the update.
        resume: Called when work goes on in this program after that.
        environ: Where the old program's message is (default: ``os.environ``).

    Raises:
        PeerError, DescriptorError, StateCorruptError: The old program's message cannot be used.

    ``fds`` takes further descriptors, ``blockers`` and ``notifiers`` are asked and told (mode ``cpr-exec``).
    ``rehearsing`` is true in a program that only tries itself: it must touch nothing outside, and its :meth:`ready`
    does not return. ``failed`` is why the update was given up, in the old program that goes on after it; "" otherwise.
    """

    def __init__(
        self,
        version: str,
        *,
        stop: Callable[[], object] | None = None,
        resume: Callable[[], object] | None = None,
        environ: MutableMapping[str, str] | None = None,
    ) -> None:
        place = os.environ if environ is None else environ
        self.version = version
        self.stop = stop or _nothing
        self.resume = resume or _nothing
        self.blockers = Blockers((MODE,))
        self.notifiers = Notifiers((MODE,), _complain)
        self.states: dict[str, State] = {}
        self.keepers: list[int] = []  # tasks that tear down the memory of a program before
        self.rehearsing = REHEARSAL in place
        self._adopted: Adopted | None = (adopt_for_rehearsal if self.rehearsing else adopt)(place)
        self.failed = ""
        self.fds = Fds()
        self._dropped: set[str] = set()
        self._stream = -1
        self._reader: Reader | None = None
        self._trial: Trial | None = None
        self._own: ThisProgram | None = None
        if self._adopted is None:
            self._find_self(None)
        else:
            self._take_over(self._adopted)

    @property
    def adopted(self) -> bool:
        """Is this program being updated to, and not yet :meth:`ready`?"""
        return self._adopted is not None

    def state(self, object_id: str, cls: type[S]) -> S:
        """Return the state of that id, kept from now on: as the old program left it, or fresh.

        Args:
            object_id: Unique in the program.
            cls: Its class, declared with ``@state``.

        Raises:
            StateError: What the old program left is damaged or cannot be read by this version.
        """
        if object_id in self.states:
            raise TypeError(f"state {object_id!r} is already kept")
        try:
            made = self._load(object_id, cls)
        except StateError as exc:
            if self._trial is not None:
                self._trial.note(exc)
            raise
        self.states[object_id] = made
        return made

    def drop(self, object_id: str) -> None:
        """Say that this version has no use for a state of the old program, nor for its descriptors.

        Without it they are complaints of a rehearsal, and reported as lost by :meth:`ready`; which closes them.
        """
        self._dropped.add(object_id)

    def ready(self) -> Report | None:
        """Say that this program serves now: what nobody asked for is closed. From here on there is no way back.

        In a rehearsal it tells the old program how it went, and ends this one.

        Returns:
            What the update did; None on an ordinary start.
        """
        adopted, reader, trial = self._adopted, self._reader, self._trial
        if adopted is None or reader is None or trial is None:
            return None
        if self.rehearsing:
            from instar.cpr.rehearsal import tell_end  # noqa: PLC0415 - nobody resumes into this

            lost = [f"{what} would be lost: nobody asks for it" for what in self._lost(reader)]
            tell_end(adopted, self.version, lost)
        loaded_ns = monotonic_ns()
        trial.end()
        try:
            adopted.commit()
        except TakenOverError as exc:
            _end_at_once(exc)
        phases = phases_from(adopted.info.get("phases"), adopted.started_ns)
        phases.append(PhaseEvent("load", adopted.started_ns, loaded_ns - adopted.started_ns))
        report = Report(reader.manifest.program, self.version, phases, [])
        report.failed = self.failed
        report.by = self._by(adopted)
        report.notes = _sentences(adopted.info.get("notes"))
        self._settle(adopted)
        report.lost = [*_sentences(adopted.info.get("lost")), *self._lost(reader)]
        self.fds.close_unclaimed()
        os.close(self._stream)
        if self._own is not None:
            self._own.lower()
        self._adopted = self._reader = self._trial = None
        let_in(adopted.info.get("held"))
        return report

    def check(self, argv: list[str], *, limit_ms: int = LIMIT_MS) -> Answer:
        """Rehearse an update to ``argv`` and do no more.

        Work stands still while this waits (about as long as the program needs to start, twice), at most ``limit_ms``
        for the new program and as long for the way back. A program with threads may call it in one of them: the state
        is copied between ``stop`` and ``resume``.

        Returns:
            What the new program told.

        Raises:
            UpdateRefusedError: The update would be refused; the notes have everything that was said.
        """
        from instar.cpr.update import check  # noqa: PLC0415 - not for the new program

        self._check_can_update(argv, limit_ms)
        return check(self, argv, limit_ms=limit_ms)

    def update(
        self,
        argv: list[str],
        *,
        rehearse: bool | Answer = True,
        guardian: bool = True,
        limit_ms: int = LIMIT_MS,
    ) -> NoReturn:
        """Become the program ``argv``, which finds its file as in a shell.

        Args:
            argv: Program and arguments.
            rehearse: Let it try itself first, as :meth:`check` does; or what :meth:`check` has just told.
            guardian: Have somebody stand by who starts this program again if the new one is lost. Process 1 has none.
            limit_ms: From the end of this program until the new one must be :meth:`ready`; from 1.

        Raises:
            UpdateRefusedError: Before the pause; nothing changed.
            UpdateAbortedError, StateError, DescriptorError: In the pause; this program goes on as before.
        """
        from instar.cpr.update import become  # noqa: PLC0415 - not for the new program

        self._check_can_update(argv, limit_ms)
        become(self, argv, limit_ms=limit_ms, rehearse=rehearse, guardian=guardian)

    @property
    def own(self) -> ThisProgram:
        """This program, as it would be executed again; UpdateRefusedError if it cannot be."""
        if self._own is None:
            raise UpdateRefusedError(
                "this program could not be executed again, so there is no way back; nothing changed"
            )
        return self._own

    def _check_can_update(self, argv: list[str], limit_ms: int) -> None:
        if limit_ms < 1:
            raise UpdateRefusedError(f"a limit of {limit_ms} ms, at least 1; nothing changed")
        if not argv:
            raise UpdateRefusedError("there is no program to execute; nothing changed")
        if self._adopted is not None:
            raise UpdateRefusedError("the last update is not finished (ready() was not called)")

    def _take_over(self, adopted: Adopted) -> None:
        self._trial = Trial(adopted, self.version, rehearsing=self.rehearsing)
        self.failed = adopted.failed
        self.fds = adopted.fds
        self._stream = self.fds.take(STREAM, 0)
        if self._stream < 0:
            raise PeerError("the old program sent no state; nothing was adopted")
        self._reader = Reader(self._stream)

    def _load(self, object_id: str, cls: type[S]) -> S:
        section = self._reader.manifest.objects.get(object_id) if self._reader else None
        if self._reader is None or section is None:
            return cls()
        if section.state != cls.state_name:
            text = f"section {object_id}: is of state {section.state}, expected {cls.state_name}"
            raise StateCorruptError(text)
        return load(cls, section.version, self._reader.record(object_id), fds=self.fds)

    def _lost(self, reader: Reader) -> list[str]:
        """Return what nobody has asked for, though nobody said that it is of no use."""
        known = {*self.states, *self._dropped}
        lost = [f"state {name}" for name in reader.manifest.objects if name not in known]
        return lost + [
            f"descriptor {entry!r}"
            for entry in self.fds.unclaimed()
            if entry.owner not in self._dropped and not entry.name.startswith(_INTERNAL)
        ]

    def _by(self, adopted: Adopted) -> By:
        if not self.failed:
            return "exec"
        return "way-back" if adopted.info.get("pid") == os.getpid() else "guardian"

    def _settle(self, adopted: Adopted) -> None:
        """Give up what only a way back needed, and find this program's own file for the next one."""
        self._find_self(adopted)
        guardian = adopted.settle()
        lease = self.fds.take(LEASE, 0)
        if lease >= 0:
            os.close(lease)
        if guardian:
            from instar.cpr.guardian_link import reap  # noqa: PLC0415 - after the pause

            reap(guardian)
        if adopted.info.get("keepers"):
            self._see_to_keepers(adopted)

    def _see_to_keepers(self, adopted: Adopted) -> None:
        """Collect the ends of the tasks that tear the old memory down, without waiting for them."""
        import _thread  # noqa: PLC0415 - after the pause

        from instar.cpr.keeper import KEEPERS, await_all, left, pids_of  # noqa: PLC0415

        self.keepers = left(pids_of(adopted.info.get(KEEPERS)))
        if self.keepers:
            _thread.start_new_thread(await_all, (list(self.keepers),))

    def _find_self(self, adopted: Adopted | None) -> None:
        try:
            self._own = ThisProgram.started() if adopted is None else ThisProgram.executed(adopted)
        except TargetError:
            self._own = None


def _sentences(value: object) -> list[str]:
    rows: list[object] = value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]
    return [str(row) for row in rows]


def _end_at_once(exc: TakenOverError) -> NoReturn:
    # Another process serves: nothing of this one may run any more, no handler and no flush.
    os.write(2, f"{sys.argv[0]}: {exc}\n".encode(errors="replace"))
    os._exit(1)


def _nothing() -> None:
    """Stop or resume a program that has nothing to stop."""


def _complain(text: str) -> None:
    import logging  # noqa: PLC0415 - slow to import, and hardly ever needed

    logging.getLogger("instar.cpr").error(text)
