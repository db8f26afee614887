"""The machine's state objects to and from a stream: all of them checked before any of them is changed."""

from __future__ import annotations

from instar import log
from instar.cpr import state as states
from instar.cpr.errors import StateError, StateInvalidError
from instar.cpr.state import State, state, subs, text, u

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, ClassVar

    from instar.cpr.fds import Fds
    from instar.cpr.stream import Reader, Writer
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


def write_sections(writer: Writer, things: Iterable[Stateful], fds: Fds) -> None:
    """Add every object's state to ``writer``; descriptors among the state go to ``fds``."""
    for thing in things:
        record = states.save(thing.save_state(), fds=fds, owner=thing.state_id)
        cls = thing.state_class
        writer.add(thing.state_id, cls.state_name, cls.state_version, record)


class Loaded:
    """State objects that were read and checked, not yet given to the machine."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: list[tuple[Stateful, State]]) -> None:
        self._pairs = pairs

    def apply(self) -> None:
        """Hand every object its state, then let each recompute its outputs."""
        for thing, loaded in self._pairs:
            thing.load_state(loaded)
        for thing, _ in self._pairs:
            post_load: Any = getattr(thing, "post_load", None)
            if post_load is not None:
                post_load()


def read_sections(reader: Reader, things: Sequence[Stateful], fds: Fds | None) -> Loaded:
    """Read and check the state of ``things``; nothing is changed yet.

    An object of ours that the stream does not have keeps its reset state, as with QEMU.

    Raises:
        StateError: a record is damaged, too new or impossible, or belongs to an object that this machine lacks.
    """
    by_id = {thing.state_id: thing for thing in things}
    found: dict[str, State] = {}
    for section in reader.manifest.objects.values():
        thing = by_id.get(section.id)
        if thing is None:
            raise StateInvalidError(
                f"Unknown section or instance '{section.id}' 0. Make sure that your current VM setup matches your "
                "saved VM setup, including any hotplugged devices",
                section.id,
            )
        if section.state != thing.state_class.state_name:
            raise StateInvalidError(
                f"{section.id}: the stream has {section.state}, this machine {thing.state_class.state_name}"
            )
        found[section.id] = states.load(
            thing.state_class, section.version, reader.record(section.id), fds=fds
        )
    for ident, loaded in found.items():
        check_against: Any = getattr(by_id[ident], "check_against", None)
        if check_against is not None:
            check_against(loaded)
    return Loaded([(thing, found[thing.state_id]) for thing in things if thing.state_id in found])


def host_records(things: Iterable[Stateful], fds: Fds) -> list[object]:
    """Return the state of the host's side (connections, monitors), which goes with the descriptors, not with the guest.

    It is needed before the guest's state is: a deferred incoming migration is started through a monitor.
    """
    records: list[object] = []
    for thing in things:
        record = states.save(thing.save_state(), fds=fds, owner=thing.state_id)
        cls = thing.state_class
        records.append(
            {
                "id": thing.state_id,
                "state": cls.state_name,
                "version": cls.state_version,
                "record": record,
            }
        )
    return records


def load_host(records: object, things: Callable[[], Iterable[Stateful]], fds: Fds) -> None:
    """Hand ``things`` what :func:`host_records` collected.

    The guest does not know these things: one that is not on this command line is left, with a warning, and so is one
    whose state this version does not understand. Loading one may make others, whose state follows.
    """
    items: list[object] = records if isinstance(records, list) else []  # pyright: ignore[reportUnknownVariableType]
    for item in items:
        fields: states.Record = item if isinstance(item, dict) else {}  # pyright: ignore[reportUnknownVariableType]
        ident, version, record = (fields.get(key) for key in ("id", "version", "record"))
        if isinstance(ident, str) and isinstance(version, int) and isinstance(record, dict):
            thing = next((thing for thing in things() if thing.state_id == ident), None)
            _load_one(thing, ident, fields, fds)
        else:
            log.warning("a state of the host's side is not understood; it is left")


def _load_one(thing: Stateful | None, ident: str, fields: Any, fds: Fds) -> None:  # noqa: ANN401 - checked by the caller
    if thing is None or thing.state_class.state_name != fields.get("state"):
        log.warning(f"{ident}: not on this command line, its state is left")
        return
    try:
        loaded = states.load(thing.state_class, fields["version"], fields["record"], fds=fds)
    except StateError as e:
        log.warning(f"{ident}: {e}; it starts anew")
        return
    thing.load_state(loaded)
