"""The engine for plain programs: keep some state and descriptors, become a new version, go on.

::

    engine = Engine("1.4")
    counter = engine.state("counter", Counter)     # as the old program left it, or fresh
    if counter.listener < 0: ...                    # first start: open what the state has room for
    engine.ready()                                  # from here on the program serves
    ...
    engine.update([program, *arguments])            # between two requests; returns only by raising
"""

from __future__ import annotations

import os
from time import monotonic_ns

from instar.cpr.adopted import Adopted, adopt
from instar.cpr.blockers import Blockers
from instar.cpr.carriers import ExecCarrier
from instar.cpr.errors import PeerError, StateCorruptError, UpdateRefusedError
from instar.cpr.fds import Fds
from instar.cpr.lifecycle import PhaseEvent, Row, Run, Table, phases_from
from instar.cpr.notifiers import Notifiers
from instar.cpr.state import State, load, save
from instar.cpr.stream import Reader, Writer
from instar.cpr.target import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from typing import Final, NoReturn, TypeVar

    S = TypeVar("S", bound=State)

MODE: Final = "cpr-exec"
STREAM: Final = "cpr/state"  # the name of the memfd with the stream

UPDATE: Final = Table(
    Row("prepare", "find-target", "open_target", "close_target"),
    Row("prepare", "ask-blockers", "check_blockers"),
    Row("prepare", "tell-listeners", "notify_setup", "notify_failed"),
    Row("stop", "stop-work", "stop_work", "resume_work"),
    Row("save", "save-state", "save_state", "drop_state"),
    Row("save", "save-descriptors", "save_descriptors", "drop_descriptors"),
    Row("exec", "execute", "execute"),
)


class Report:
    """What an update did: versions, the pause, its phases, and what the new program did not ask for."""

    __slots__ = ("lost", "new", "old", "phases")

    def __init__(self, old: str, new: str, phases: list[PhaseEvent], lost: list[str]) -> None:
        self.old = old
        self.new = new
        self.phases = phases
        self.lost = lost

    @property
    def pause_ns(self) -> int:
        """From the begin of the stop to the end of the load, ns; 0 if the old program told nothing."""
        return sum(event.took_ns for event in self.phases if event.phase != "prepare")

    def __str__(self) -> str:
        parts = ", ".join(
            f"{e.phase} {e.took_ns / 1e6:.1f}" for e in self.phases if e.phase != "prepare"
        )
        return f"update {self.old} -> {self.new}: pause {self.pause_ns / 1e6:.1f} ms ({parts})"


class Engine:
    """Keeps a program's state and descriptors through updates of itself.

    Args:
        version: Of this program, for reports.
        stop: Called when the pause begins: park threads, finish requests (raising aborts the update).
        resume: Called when an update failed after that: go on.
        environ: Where the old program's message is (default: ``os.environ``).

    Raises:
        PeerError, DescriptorError, StateCorruptError: The old program's message cannot be used.

    ``fds`` takes further descriptors, ``blockers`` and ``notifiers`` are asked and told (mode ``cpr-exec``).
    """

    def __init__(
        self,
        version: str,
        *,
        stop: Callable[[], object] | None = None,
        resume: Callable[[], object] | None = None,
        environ: MutableMapping[str, str] | None = None,
    ) -> None:
        self.version = version
        self.stop = stop or _nothing
        self.resume = resume or _nothing
        self.blockers = Blockers((MODE,))
        self.notifiers = Notifiers((MODE,), _complain)
        self.states: dict[str, State] = {}
        self._adopted: Adopted | None = adopt(environ)
        self.fds = self._adopted.fds if self._adopted else Fds()
        self._stream = self.fds.take(STREAM, 0)
        self._reader = Reader(self._stream) if self._stream >= 0 else None
        if self._adopted is not None and self._reader is None:
            raise PeerError("the old program sent no state; nothing was adopted")

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
        section = self._reader.manifest.objects.get(object_id) if self._reader else None
        if self._reader is None or section is None:
            made = cls()
        elif section.state != cls.state_name:
            text = f"section {object_id}: is of state {section.state}, expected {cls.state_name}"
            raise StateCorruptError(text)
        else:
            made = load(cls, section.version, self._reader.record(object_id), fds=self.fds)
        self.states[object_id] = made
        return made

    def ready(self) -> Report | None:
        """Say that this program serves now: what nobody asked for is closed.

        Returns:
            What the update did; None on an ordinary start.
        """
        adopted, reader = self._adopted, self._reader
        if adopted is None or reader is None:
            return None
        adopted.commit()
        adopted.settle()
        lost = [f"state {name}" for name in reader.manifest.objects if name not in self.states]
        lost += [f"descriptor {entry!r}" for entry in self.fds.close_unclaimed()]
        os.close(self._stream)
        self._adopted = self._reader = None
        phases = phases_from(adopted.info.get("phases"), adopted.started_ns)
        phases.append(PhaseEvent("load", adopted.started_ns, monotonic_ns() - adopted.started_ns))
        return Report(reader.manifest.program, self.version, phases, lost)

    def update(self, argv: list[str]) -> NoReturn:
        """Become the program ``argv``, which finds its file as in a shell.

        Raises:
            UpdateRefusedError: Before the pause; nothing changed.
            UpdateAbortedError, StateError, DescriptorError: In the pause; this program goes on as before.
        """
        if not argv:
            raise UpdateRefusedError("there is no program to execute; nothing changed")
        if self._adopted is not None:
            raise UpdateRefusedError("the last update is not finished (ready() was not called)")
        _Update(self, argv).run.run()
        raise AssertionError("an update ends in another program")


class _Update:
    # One attempt: the actor of the table. Each undo brings back what was before, however far its action came.

    def __init__(self, engine: Engine, argv: list[str]) -> None:
        self.engine = engine
        self.argv = argv
        self.run = Run(UPDATE, self)
        self.target: Target | None = None
        self.carrier: ExecCarrier | None = None
        self.stream = -1
        self.fds = (
            engine.fds
        )  # replaced by a copy that the states fill, so that undoing is forgetting

    def open_target(self) -> None:
        self.target = Target.open(self.argv[0])
        self.carrier = ExecCarrier(self.target, self.argv)

    def close_target(self) -> None:
        if self.target is not None:
            self.target.close()

    def check_blockers(self) -> None:
        self.engine.blockers.check(MODE)

    def notify_setup(self) -> None:
        self.engine.notifiers.setup(MODE)

    def notify_failed(self) -> None:
        self.engine.notifiers.failed(MODE)

    def stop_work(self) -> None:
        self.engine.stop()

    def resume_work(self) -> None:
        self.engine.resume()

    def save_state(self) -> None:
        self.fds = self.engine.fds.copy()
        self.stream = os.memfd_create("instar-state", os.MFD_CLOEXEC)
        writer = Writer(self.stream, program=self.engine.version, mode=MODE)
        for object_id, live in self.engine.states.items():
            record = save(live, fds=self.fds, owner=object_id)
            writer.add(object_id, live.state_name, live.state_version, record)
        writer.finish()
        self.fds.save(STREAM, 0, self.stream, kind="state", owner="cpr")

    def drop_state(self) -> None:
        if self.stream >= 0:
            os.close(self.stream)

    def save_descriptors(self) -> None:
        assert self.carrier is not None
        self.carrier.save(self.fds, {"phases": self.run.snapshot()})

    def drop_descriptors(self) -> None:
        if self.carrier is not None:
            self.carrier.drop()

    def execute(self) -> None:
        assert self.carrier is not None
        self.engine.notifiers.done(MODE)
        self.carrier.execute(os.environ)


def _nothing() -> None:
    """Stop or resume a program that has nothing to stop."""


def _complain(text: str) -> None:
    import logging  # noqa: PLC0415 - slow to import, and hardly ever needed

    logging.getLogger("instar.cpr").error(text)
