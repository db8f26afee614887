"""The life of an update as a table, and the executor that walks it and undoes it.

A row names an action and an undo of some *actor*; fault tests, diagram and documentation come from the
same table. The executor does one action a call, so a main loop can go on between rows and in the middle
of a long one.
"""

from __future__ import annotations

from time import monotonic_ns

from instar.cpr.errors import (
    CprError,
    UpdateAbortedError,
    UpdateCancelledError,
    UpdateRefusedError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Literal, NoReturn

    Outcome = Literal["again", "wait"] | None
    Progress = Literal["again", "waiting", "done"]
    Status = Literal["ready", "again", "waiting", "done", "failed", "cancelled"]

AGAIN: Final = "again"  # an action's result: not finished, call me again in the next turn
WAIT: Final = "wait"  # an action's result: finished, but stay here until proceed()

# name, is the guest (or service) paused, what happens, what a failure in it means
PHASES: Final = (
    ("prepare", False, "everything that can be refused is checked", "refused, nothing changed"),
    ("rehearse", False, "the new version tries itself beside the old", "refused, nothing changed"),
    ("stop", True, "work stops between two requests", "the old program goes on"),
    ("save", True, "state and descriptors are written down", "the old program goes on"),
    ("exec", True, "the new program replaces the old", "the old program goes on"),
    (
        "load",
        True,
        "descriptors first, then objects, then state",
        "the old program goes on again",
    ),
    (
        "resume",
        False,
        "the commit: work goes on, the saved state is stale",
        "before the commit the old program goes on",
    ),
    ("settle", False, "what nobody claimed is closed, the report is sent", "reported"),
)
_ORDER: Final = {name: n for n, (name, *_) in enumerate(PHASES)}
_FIRST_PAUSED: Final = _ORDER["stop"]
_CANCELLED: Final = "the update was cancelled; everything was undone"


class Row:
    """One step of an update.

    Args:
        phase: One of :data:`PHASES`.
        event: The step's own name, unique in its table.
        action: Method of the actor; returns None, AGAIN or WAIT.
        undo: Method that brings back what was before, whether the action was done, half done or failed at
            once; "" if there is nothing to bring back. It must not raise.
        commit: From here on nothing is undone any more.
    """

    __slots__ = ("action", "commit", "event", "phase", "undo")

    def __init__(
        self, phase: str, event: str, action: str, undo: str = "", *, commit: bool = False
    ) -> None:
        self.phase = phase
        self.event = event
        self.action = action
        self.undo = undo
        self.commit = commit


class Table:
    """Rows in the order of their phases; ``TypeError`` if a phase is unknown or an event doubled."""

    __slots__ = ("rows",)

    def __init__(self, *rows: Row) -> None:
        unknown = [row.phase for row in rows if row.phase not in _ORDER]
        if unknown or not rows:
            raise TypeError(f"no such phase: {', '.join(unknown) or '(no rows)'}")
        order = [_ORDER[row.phase] for row in rows]
        if order != sorted(order):
            raise TypeError("the rows are not in the order of the phases")
        if len({row.event for row in rows}) != len(rows):
            raise TypeError("two rows have the same event")
        self.rows = rows

    def mermaid(self) -> str:
        """Return the table as a Mermaid state diagram, for the documentation."""
        names = [row.event.replace("-", "_") for row in self.rows]
        lines = ["stateDiagram-v2", f"    [*] --> {names[0]}"]
        for n, row in enumerate(self.rows):
            lines.append(f"    {names[n]} : {row.phase} / {row.event}")
            after = names[n + 1] if n + 1 < len(names) else "[*]"
            lines.append(f"    {names[n]} --> {after}{' : commit' if row.commit else ''}")
        reached: list[str] = []
        for n, row in enumerate(self.rows):
            reached = [row.undo, *reached] if row.undo else reached
            lines.append(
                f"    {names[n]} --> undone : failure; {', '.join(reached) or 'nothing to undo'}"
            )
            if row.commit:
                reached = []
        return "\n".join([*lines, "    undone --> [*]"]) + "\n"


class PhaseEvent:
    """A phase came to its end: its name, when it began (monotonic ns), how long it took (ns), whether it failed."""

    __slots__ = ("failed", "phase", "start_ns", "took_ns")

    def __init__(self, phase: str, start_ns: int, took_ns: int, *, failed: bool = False) -> None:
        self.phase = phase
        self.start_ns = start_ns
        self.took_ns = took_ns
        self.failed = failed

    def to_record(self) -> dict[str, object]:
        """Return the event for another program."""
        return {"phase": self.phase, "start-ns": self.start_ns, "took-ns": self.took_ns}


class Run:
    """One update on its way through a table.

    Args:
        table: What to do.
        actor: Who does it.
        emit: Called at the end of each phase that was begun, the failed one too; must not raise.
        begin: Called with a phase's name when it begins; must not raise.
        clock: Monotonic ns.

    Raises:
        TypeError: The actor lacks a method that the table names.
    """

    def __init__(
        self,
        table: Table,
        actor: object,
        *,
        emit: Callable[[PhaseEvent], object] | None = None,
        begin: Callable[[str], object] | None = None,
        clock: Callable[[], int] = monotonic_ns,
    ) -> None:
        self.status: Status = "ready"
        self.events: list[PhaseEvent] = []
        self._rows = table.rows
        self._calls = {
            name: _method(actor, name)
            for row in table.rows
            for name in (row.action, row.undo)
            if name
        }
        self._emit = emit
        self._tell_begin = begin
        self._clock = clock
        self._at = 0
        self._begun: list[Row] = []
        self._phase_start = 0
        self._inside = False
        self._cancel = False
        self._committed = False

    @property
    def row(self) -> Row:
        """The row that is next, or is being done; the last one at the end."""
        return self._rows[min(self._at, len(self._rows) - 1)]

    @property
    def phase(self) -> str:
        """The phase of :attr:`row`."""
        return self.row.phase

    def snapshot(self) -> list[dict[str, object]]:
        """Return the phases so far, the current one up to now, for :func:`phases_from`."""
        now = PhaseEvent(self.phase, self._phase_start, self._clock() - self._phase_start)
        return [event.to_record() for event in (*self.events, now)]

    def advance(self) -> Progress:
        """Do one call of one action.

        Returns:
            ``"again"``: call me in the next turn; ``"waiting"``: after :meth:`proceed`; ``"done"``.

        Raises:
            CprError: An action failed and everything was undone; ``.phase`` says where. An error that is
                not a CprError becomes UpdateRefusedError before the stop phase, UpdateAbortedError from
                there on. The update was cancelled from inside an action: UpdateCancelledError.
            ExceptionGroup: An undo failed too; the first one in it is the cause.
        """
        if self.status not in ("ready", "again"):
            return "waiting" if self.status == "waiting" else "done"
        row = self.row
        if not self._begun or self._begun[-1] is not row:
            self._begin(row)
        try:
            return self._after(row, self._call(row))
        except Exception as exc:
            self._fail(exc)
        except BaseException as exc:  # the interrupt of a terminal must not leave work stopped
            self._undo(exc, "failed")
            raise

    def proceed(self) -> None:
        """Leave ``"waiting"``: the next :meth:`advance` does the next row. Otherwise nothing."""
        if self.status == "waiting":
            self.status = "again"

    def run(self) -> None:
        """Advance until done, for programs that need no turns; raises like :meth:`advance`."""
        while self.advance() != "done":
            self.proceed()

    def cancel(self) -> bool:
        """Undo everything; from inside an action, as soon as it returns.

        Returns:
            False if there is nothing to cancel: it is over, or was committed.

        Raises:
            ExceptionGroup: An undo failed; the others were called all the same.
        """
        if self._committed or self.status in ("done", "failed", "cancelled"):
            return False
        if self._inside:
            self._cancel = True
            return True
        self._undo(UpdateCancelledError(_CANCELLED), "cancelled")
        return True

    def _begin(self, row: Row) -> None:
        before = self._rows[self._at - 1].phase if self._at else ""
        if not before:
            self._phase_start = self._clock()
        elif before != row.phase:
            self._end_phase(before)
        if before != row.phase and self._tell_begin is not None:
            self._tell_begin(row.phase)
        self._begun.append(row)

    def _call(self, row: Row) -> Outcome:
        self._inside = True
        try:
            outcome = self._calls[row.action]()
        finally:
            self._inside = False
        if self._cancel:
            raise UpdateCancelledError(_CANCELLED)
        return outcome

    def _after(self, row: Row, outcome: Outcome) -> Progress:
        if outcome == AGAIN:
            self.status = "again"
            return "again"
        self._at += 1
        if row.commit:
            self._begun = []
            self._committed = True
        if self._at == len(self._rows):
            self.status = "done"
            self._end_phase(row.phase)
            return "done"
        self.status = "waiting" if outcome == WAIT else "again"
        return self.status

    def _end_phase(self, phase: str, *, failed: bool = False) -> None:
        now = self._clock()
        event = PhaseEvent(phase, self._phase_start, now - self._phase_start, failed=failed)
        self._phase_start = now
        self.events.append(event)
        if self._emit is not None:
            self._emit(event)

    def _fail(self, exc: Exception) -> NoReturn:
        phase = self.phase
        error = exc if isinstance(exc, CprError) else _wrapped(exc, phase)
        error.phase = phase
        self._undo(error, "cancelled" if isinstance(exc, UpdateCancelledError) else "failed")
        if error is exc:
            raise error
        raise error from exc

    def _undo(self, cause: BaseException, status: Status) -> None:
        phase = self.phase if self._begun else ""
        failures: list[Exception] = []
        for row in reversed(self._begun):
            try:
                if row.undo:
                    self._calls[row.undo]()
            except Exception as exc:
                exc.add_note(f"while undoing {row.phase}/{row.event}")
                failures.append(exc)
        self._begun = []
        self.status = status
        if phase:
            self._end_phase(phase, failed=True)
        if failures:
            text = "the update failed, and undoing it failed too"
            raise BaseExceptionGroup(text, [cause, *failures])


def _method(actor: object, name: str) -> Callable[[], Outcome]:
    method: Callable[[], Outcome] | None = getattr(actor, name, None)
    if not callable(method):
        raise TypeError(f"{type(actor).__name__} has no method {name}")
    return method


def _wrapped(exc: Exception, phase: str) -> CprError:
    what = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    after = PHASES[_ORDER[phase]][3]
    text = f"update stopped in phase {phase!r}: {what or type(exc).__name__}; {after}"
    return (UpdateRefusedError if _ORDER[phase] < _FIRST_PAUSED else UpdateAbortedError)(text)


def phases_from(record: object, adopted_ns: int) -> list[PhaseEvent]:
    """Return the phases that the old program wrote down, and ``exec`` up to ``adopted_ns``.

    A record that makes no sense (it is only news, and may be of any version) gives an empty list.
    """
    found: list[PhaseEvent] = []
    rows: list[object] = record if isinstance(record, list) else []  # pyright: ignore[reportUnknownVariableType]
    for row in rows:
        match row:
            case {"phase": str(phase), "start-ns": int(start), "took-ns": int(took)}:
                found.append(PhaseEvent(phase, start, took))
            case _:  # pyright: ignore[reportUnknownVariableType]
                return []
    if found:
        end = found[-1].start_ns + found[-1].took_ns
        found.append(PhaseEvent("exec", end, adopted_ns - end))
    return found
