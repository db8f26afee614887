"""State objects written: into a stream, or as records beside the descriptors; ``sections`` reads them.

A reader of another version is served as well: the writer is told which versions of the states it reads, and optional
fields that an object here does not know go on with it (docs/decisions/0009-state-versions.md). Not on the resume path.
"""

from __future__ import annotations

from instar import log
from instar._version import VERSION
from instar.cpr import state as states
from instar.cpr.errors import StateInvalidError
from instar.cpr.losses import check_writable, differing, losses
from instar.migration.sections import KEPT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, Final

    from instar.cpr.fds import Fds
    from instar.cpr.state import State
    from instar.cpr.writer import Writer
    from instar.stateful import Stateful

    # Object id, state's name, version, record, versions of the states inside.
    Section = tuple[str, str, int, states.Record, dict[str, int]]

_UNWRITTEN: Final = "nothing was written"


def write_sections(
    writer: Writer,
    things: Iterable[Stateful],
    fds: Fds,
    versions: Mapping[str, int] | None = None,
    *,
    peek: bool = False,
) -> None:
    """Add every object's state to ``writer``; descriptors among the state go to ``fds``.

    Args:
        writer: Where to.
        things: The objects.
        fds: The table of the update.
        versions: By state name, the version that the reader understands (:mod:`instar.cpr.versions`), also of states
            inside others; what is missing is written in the current one.
        peek: The machine goes on: the copy is for a rehearsal.

    Raises:
        StateTooNewError, StateTooOldError: this program does not write a version that is wanted; the objects are as
            they were, the update cannot go on.
        StateInvalidError: an older version could not have the state that an object is in; as above.

    What a step down loses is said by a warning; :func:`losses_of` tells it beforehand.
    """
    for section in sections(things, fds, versions, peek=peek):
        writer.add(*section)


def sections(
    things: Iterable[Stateful],
    fds: Fds,
    versions: Mapping[str, int] | None = None,
    *,
    peek: bool = False,
) -> Iterator[Section]:
    """Yield every object's state, as ``Writer.add`` takes it; as :func:`write_sections`, which see."""
    wanted = versions or {}
    for thing in things:
        cls = thing.state_class
        check_writable(thing.state_id, cls, wanted, VERSION, _UNWRITTEN)
        version = wanted.get(cls.state_name, cls.state_version)
        inner = states.inner(cls, version)
        record = _record(thing, fds, wanted, peek=peek)
        inside = {name: wanted.get(name, one.state_version) for name, one in inner.items()}
        yield thing.state_id, cls.state_name, version, record, inside


def _record(
    thing: Stateful, fds: Fds, versions: Mapping[str, int], *, peek: bool
) -> states.Record:
    """Return the thing's state as a record, with what came along for versions to come."""
    live = live_state(thing, peek=peek)
    version = versions.get(live.state_name, live.state_version)
    record = states.save(live, version, fds=fds, owner=thing.state_id, versions=versions)
    if versions and not peek:
        for lost in _losses(thing, live, versions):
            log.warning(f"{lost} is not known to the reader and does not go on")
    if id(thing) in KEPT:
        _add_kept(thing, live, record)
    return record


def live_state(thing: Stateful, *, peek: bool) -> State:
    """Return the thing's state; some have one only while the machine stands still, and another way for a rehearsal."""
    look: Any = getattr(thing, "peek_state", None) if peek else None
    return thing.save_state() if look is None else look()


def losses_of(
    things: Iterable[Stateful], versions: Mapping[str, int], after: str = _UNWRITTEN
) -> list[str]:
    """Return the fields that would not outlive a reader of these versions, as ``"net0.pairs"``.

    Args:
        things: The objects; they may be at work.
        versions: As for :func:`write_sections`.
        after: What state things are in if that cannot be, for people.

    Raises:
        StateError: as for :func:`write_sections`; nothing was changed.
    """
    found: list[str] = []
    for thing in things:
        check_writable(thing.state_id, thing.state_class, versions, VERSION, after)
        try:
            found += _losses(thing, live_state(thing, peek=True), versions)
        except StateInvalidError as e:  # what the older version has no place for is in use
            raise StateInvalidError(f"{thing.state_id}: {e}; {after}", e.path) from e
    return found


def _losses(thing: Stateful, live: State, versions: Mapping[str, int]) -> list[str]:
    """Go down and up again, but only where the reader is older."""
    cls = type(live)
    if not differing(cls, versions):
        return []
    version = versions.get(cls.state_name, cls.state_version)
    return [f"{thing.state_id}.{path}" for path in losses(live, version, versions)]


def _add_kept(thing: Stateful, live: State, record: states.Record) -> None:
    there = states.kept(live)
    for path, fields in KEPT[id(thing)][1].items():
        if not path:
            apart: Any = record.setdefault(states.APART, {})
            record[states.APART] = {**fields, **apart}
        elif (
            path not in there
        ):  # the object made its inner states anew: whose the fields were is not known
            names = ", ".join(sorted(fields))
            log.warning(f"{thing.state_id}.{path}: {names} of a newer version does not go on")


def host_records(
    things: Iterable[Stateful],
    fds: Fds,
    versions: Mapping[str, int] | None = None,
    *,
    peek: bool = False,
) -> list[object]:
    """Return the state of the host's side (connections, monitors), which goes with the descriptors, not with the guest.

    It is needed before the guest's state is: a deferred incoming migration is started through a monitor. Versions and
    errors are as for :func:`write_sections`.
    """
    records: list[object] = []
    wanted = versions or {}
    for thing in things:
        cls = thing.state_class
        check_writable(thing.state_id, cls, wanted, VERSION, _UNWRITTEN)
        name = cls.state_name
        version = wanted.get(name, cls.state_version)
        record = _record(thing, fds, wanted, peek=peek)
        records.append({"id": thing.state_id, "state": name, "version": version, "record": record})
    return records
