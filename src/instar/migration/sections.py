"""The machine's state objects to and from a stream: all of them checked before any of them is changed.

A reader of another version is served as well: the writer is told which versions of the states it reads, and optional
fields that an object here does not know go on with it (docs/decisions/0009-state-versions.md).
"""

from __future__ import annotations

from instar import log
from instar._version import VERSION
from instar.cpr import state as states
from instar.cpr.errors import (
    StateError,
    StateInvalidError,
    StateTooNewError,
    StateTooOldError,
)
from instar.cpr.losses import check_writable, differing, losses, span
from instar.cpr.state import State, state, subs, text, u

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, ClassVar, Final

    from instar.cpr.fds import Fds
    from instar.cpr.manifest import Manifest, Section
    from instar.cpr.stream import Reader
    from instar.cpr.writer import Writer
    from instar.machine.parts import MemoryBackend
    from instar.stateful import Stateful


@state("ram-block", version=1)
class RamBlockState(State):
    """One RAM block that the guest has."""

    id: str = text("Name of the memory backend.", max=256)
    size: int = u(64, "Size.", unit="bytes")


@state("ram", version=1)
class RamState(State):
    """Which RAM blocks there are; their bytes stay in place or follow as bulk sections."""

    blocks: list[RamBlockState] = subs(RamBlockState, "RAM blocks by name.", max=64)


class RamBox:
    """Checks that the RAM found is the RAM that was left."""

    __slots__ = ("_backends",)
    state_id = "ram"
    state_class: ClassVar[type[State]] = RamState

    def __init__(self, backends: Sequence[MemoryBackend]) -> None:
        self._backends = backends

    def save_state(self) -> RamState:
        """Return the names and sizes of all blocks."""
        return RamState(blocks=[RamBlockState(id=b.id, size=b.size) for b in self._backends])

    def check_against(self, state: RamState) -> None:
        """Refuse RAM of another name or size.

        Raises:
            StateInvalidError: a block is missing here, or has another size; nothing was changed.
        """
        mine = {b.id: b.size for b in self._backends}
        for block in state.blocks:
            if block.id not in mine:
                raise StateInvalidError(
                    f'Unknown ramblock "{block.id}", cannot accept migration', "ram.blocks"
                )
            if mine[block.id] != block.size:
                raise StateInvalidError(
                    f"Size mismatch: {block.id}: {block.size:#x} != {mine[block.id]:#x}",
                    "ram.blocks",
                )

    def load_state(self, state: RamState) -> None:
        """Do nothing more: RAM was compared before anything was loaded."""


_UNWRITTEN: Final = "nothing was written"

# Optional fields that came with an object and that it does not know, by the object's identity. Most objects take
# their fields out of a state one by one, and none has a place for fields of a version to come.
_kept: Final[dict[int, tuple[Stateful, dict[str, states.Record]]]] = {}


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
    wanted = versions or {}
    for thing in things:
        cls = thing.state_class
        check_writable(thing.state_id, cls, wanted, VERSION, _UNWRITTEN)
        version = wanted.get(cls.state_name, cls.state_version)
        inner = states.inner(cls, version)
        record = _record(thing, fds, wanted, peek=peek)
        inside = {name: wanted.get(name, one.state_version) for name, one in inner.items()}
        writer.add(thing.state_id, cls.state_name, version, record, inside)


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
    if id(thing) in _kept:
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
    for path, fields in _kept[id(thing)][1].items():
        if not path:
            apart: Any = record.setdefault(states.APART, {})
            record[states.APART] = {**fields, **apart}
        elif (
            path not in there
        ):  # the object made its inner states anew: whose the fields were is not known
            names = ", ".join(sorted(fields))
            log.warning(f"{thing.state_id}.{path}: {names} of a newer version does not go on")


def _keep(thing: Stateful, loaded: State) -> None:
    found = states.kept(loaded)
    if found:
        _kept[id(thing)] = (thing, found)
    else:
        _kept.pop(id(thing), None)


class Loaded:
    """State objects that were read and checked, not yet given to the machine."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: list[tuple[Stateful, State]]) -> None:
        self._pairs = pairs

    def kept(self) -> list[str]:
        """Return the optional fields that this program does not know and keeps, as ``"plic.name"``."""
        return [
            ".".join(filter(None, (thing.state_id, path, name)))
            for thing, loaded in self._pairs
            for path, fields in states.kept(loaded).items()
            for name in fields
        ]

    def replace(self, newer: Loaded) -> None:
        """Take the states that ``newer`` has in the place of those of the same objects here."""
        by_id = {thing.state_id: loaded for thing, loaded in newer._pairs}
        self._pairs = [(thing, by_id.get(thing.state_id, loaded)) for thing, loaded in self._pairs]

    def apply(self) -> None:
        """Hand every object its state, then let each recompute its outputs."""
        self.hand_over()
        self.go_on()

    def hand_over(self) -> None:
        """Do the first half of :meth:`apply`."""
        for thing, loaded in self._pairs:
            _keep(thing, loaded)  # before the object changes what it is given
            thing.load_state(loaded)

    def go_on(self) -> None:
        """Do the second half of :meth:`apply`."""
        for thing, _ in self._pairs:
            post_load: Any = getattr(thing, "post_load", None)
            if post_load is not None:
                post_load()


def check_manifest(manifest: Manifest, things: Sequence[Stateful]) -> None:
    """Refuse what the manifest alone tells that ``things`` cannot take; no state has been read yet.

    Raises:
        StateTooNewError, StateTooOldError: a state, or one inside it, is of a version that this program does not read;
            the text says which program reads it.
        StateInvalidError: an object of the stream is not here, or is another thing here.
    """
    by_id = {thing.state_id: thing for thing in things}
    for section in manifest.objects.values():
        thing = by_id.get(section.id)
        if thing is None:
            raise StateInvalidError(
                f"Unknown section or instance '{section.id}' 0. Make sure that your current VM setup matches your "
                "saved VM setup, including any hotplugged devices",
                section.id,
            )
        cls = thing.state_class
        if section.state != cls.state_name:
            raise StateInvalidError(
                f"{section.id}: the stream has {section.state}, this machine {cls.state_name}"
            )
        _check_readable(manifest, section, cls, section.version)
        inner = states.inner(cls, cls.state_version) if section.inner else {}
        for name, version in section.inner.items():
            if name in inner:  # what only the writer has inside is the business of the steps
                _check_readable(manifest, section, inner[name], version)


def _check_readable(manifest: Manifest, section: Section, cls: type[State], version: int) -> None:
    if cls.state_oldest <= version <= cls.state_version:
        return
    text = f"{section.id}: state {cls.state_name} is v{version}, this program ({VERSION}) reads {span(cls)}"
    if version > cls.state_version:
        raise StateTooNewError(
            f"{text}; version {manifest.program}, which wrote it, or a later one is needed; nothing was loaded"
        )
    raise StateTooOldError(
        f"{text}; a version that reads v{version} is needed in between; nothing was loaded"
    )


def read_sections(reader: Reader, things: Sequence[Stateful], fds: Fds | None) -> Loaded:
    """Read and check the state of ``things``; nothing is changed yet.

    An object of ours that the stream does not have keeps its reset state, as with QEMU.

    Raises:
        StateError: a record is damaged, too new or impossible, or belongs to an object that this machine lacks.
    """
    check_manifest(reader.manifest, things)
    by_id = {thing.state_id: thing for thing in things}
    found: dict[str, State] = {}
    for section in reader.manifest.objects.values():
        found[section.id] = states.load(
            by_id[section.id].state_class, section.version, reader.record(section.id), fds=fds
        )
    for ident, loaded in found.items():
        check_against: Any = getattr(by_id[ident], "check_against", None)
        if check_against is not None:
            check_against(loaded)
    return Loaded([(thing, found[thing.state_id]) for thing in things if thing.state_id in found])


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


def read_records(records: object, things: Iterable[Stateful]) -> Loaded:
    """Read and check what :func:`host_records` collected, all of it; nothing is changed yet.

    Raises:
        StateError: a state is missing, is too new, damaged or impossible, or belongs to something else.
    """
    rows: list[Any] = records if isinstance(records, list) else []  # pyright: ignore[reportUnknownVariableType]
    found: dict[object, states.Record] = {}
    for row in rows:
        if isinstance(row, dict):
            fields: states.Record = row  # pyright: ignore[reportUnknownVariableType]
            found[fields.get("id")] = fields
    pairs: list[tuple[Stateful, State]] = []
    for thing in things:
        fields = found.get(thing.state_id, {})
        version, record = fields.get("version"), fields.get("record")
        if (
            fields.get("state") != thing.state_class.state_name
            or not isinstance(version, int)
            or not isinstance(record, dict)
        ):
            raise StateInvalidError(f"{thing.state_id}: its state is missing", thing.state_id)
        loaded = states.load(thing.state_class, version, record)  # pyright: ignore[reportUnknownArgumentType]
        check_against: Any = getattr(thing, "check_against", None)
        if check_against is not None:
            check_against(loaded)
        pairs.append((thing, loaded))
    return Loaded(pairs)


def load_host(
    records: object,
    things: Callable[[], Iterable[Stateful]],
    fds: Fds,
    lost: Callable[[str], object] | None = None,
) -> None:
    """Hand ``things`` what :func:`host_records` collected.

    The guest does not know these things: one that is not on this command line is left, with a warning, and so is one
    whose state this version does not understand. Loading one may make others, whose state follows. ``lost`` is told of
    each in a sentence; without it that is a warning.
    """
    tell = lost or log.warning
    items: list[object] = records if isinstance(records, list) else []  # pyright: ignore[reportUnknownVariableType]
    for item in items:
        fields: states.Record = item if isinstance(item, dict) else {}  # pyright: ignore[reportUnknownVariableType]
        ident, version, record = (fields.get(key) for key in ("id", "version", "record"))
        if isinstance(ident, str) and isinstance(version, int) and isinstance(record, dict):
            thing = next((thing for thing in things() if thing.state_id == ident), None)
            _load_one(thing, ident, fields, fds, tell)
        else:
            tell("a state of the host's side is not understood; it is left")


def _load_one(
    thing: Stateful | None,
    ident: str,
    fields: Any,  # noqa: ANN401 - checked by the caller
    fds: Fds,
    lost: Callable[[str], object],
) -> None:
    if thing is None or thing.state_class.state_name != fields.get("state"):
        lost(f"{ident}: not on this command line, its state is left")
        return
    try:
        loaded = states.load(thing.state_class, fields["version"], fields["record"], fds=fds)
    except StateError as e:
        lost(f"{ident}: {e}; it starts anew")
        return
    _keep(thing, loaded)
    thing.load_state(loaded)
