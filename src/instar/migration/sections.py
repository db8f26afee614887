"""The machine's state objects from a stream: all of them checked before any of them is changed.

Optional fields that an object here does not know go on with it (docs/decisions/0009-state-versions.md); ``saving``
writes them.
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
from instar.cpr.state import State, state, subs, text, u

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, ClassVar, Final

    from instar.cpr.fds import Fds
    from instar.cpr.manifest import Manifest, Section
    from instar.cpr.stream import Reader
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


# Optional fields that came with an object and that it does not know, by the object's identity. Most objects take
# their fields out of a state one by one, and none has a place for fields of a version to come.
KEPT: Final[dict[int, tuple[Stateful, dict[str, states.Record]]]] = {}


def _keep(thing: Stateful, loaded: State) -> None:
    found = states.kept(loaded)
    if found:
        KEPT[id(thing)] = (thing, found)
    else:
        KEPT.pop(id(thing), None)


class Loaded:
    """State objects that were read and checked, not yet given to the machine."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[Stateful, State]]) -> None:
        self.pairs = pairs

    def kept(self) -> list[str]:
        """Return the optional fields that this program does not know and keeps, as ``"plic.name"``."""
        return [
            ".".join(filter(None, (thing.state_id, path, name)))
            for thing, loaded in self.pairs
            for path, fields in states.kept(loaded).items()
            for name in fields
        ]

    def replace(self, newer: Loaded) -> None:
        """Take the states that ``newer`` has in the place of those of the same objects here."""
        by_id = {thing.state_id: loaded for thing, loaded in newer.pairs}
        self.pairs = [(thing, by_id.get(thing.state_id, loaded)) for thing, loaded in self.pairs]

    def apply(self) -> None:
        """Hand every object its state, then let each recompute its outputs."""
        self.hand_over()
        self.go_on()

    def hand_over(self) -> None:
        """Do the first half of :meth:`apply`."""
        for thing, loaded in self.pairs:
            _keep(thing, loaded)  # before the object changes what it is given
            thing.load_state(loaded)

    def go_on(self) -> None:
        """Do the second half of :meth:`apply`."""
        for thing, _ in self.pairs:
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
        inner = states.inner(cls, cls.state_version)
        for name, version in section.inner.items():
            if name in inner:  # what only the writer has inside is the business of the steps
                _check_readable(manifest, section, inner[name], version)


def _check_readable(manifest: Manifest, section: Section, cls: type[State], version: int) -> None:
    if cls.state_oldest <= version <= cls.state_version:
        return
    from instar.cpr.losses import span  # noqa: PLC0415 - nobody resumes from this

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
