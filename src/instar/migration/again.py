"""What a rehearsal does with a state that it has read: load it, save it as the program before did, compare.

Whatever differs would be lost by the update, or by the way back after it. Not on the resume path.

Source: own; docs/decisions/0008.
"""

from __future__ import annotations

from time import monotonic_ns

from instar.cpr import state as states
from instar.cpr.fds import Fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Final

    from instar.cpr.stream import Reader
    from instar.migration.sections import Loaded
    from instar.stateful import Stateful

_LIMIT: Final = 100  # differences told


class Tried:
    """How it went.

    Attributes:
        lost: Fields that come back otherwise than they were given, as ``"plic.pending[3]"``.
        kept: Optional fields that this program does not know and keeps.
        load_ns: How long checking and loading took.
    """

    __slots__ = ("kept", "load_ns", "lost")

    def __init__(self, lost: list[str], kept: list[str], load_ns: int) -> None:
        self.lost = lost
        self.kept = kept
        self.load_ns = load_ns


def try_again(loaded: Loaded, reader: Reader, things: Iterable[Stateful]) -> Tried:
    """Load, save again in the versions of ``reader`` before anything goes on, and then let everything go on.

    The order matters: what goes on looks into the memory of a guest that runs elsewhere.

    Raises:
        StateError: what was loaded cannot be saved.
    """
    began = monotonic_ns()
    loaded.hand_over()
    took = monotonic_ns() - began
    lost: list[str] = []
    for thing in things:
        section = reader.manifest.objects.get(thing.state_id)
        if section is not None:
            given = reader.record(thing.state_id)
            saved = _saved(thing, section.version, section.inner)
            lost += differences(given, saved, thing.state_id)
    kept = loaded.kept()
    began = monotonic_ns()
    loaded.go_on()
    return Tried(lost[:_LIMIT], kept, took + monotonic_ns() - began)


def host_losses(records: object, things: Iterable[Stateful], versions: object) -> list[str]:
    """Return what of the host's side, as ``host_records`` wrote it, comes back otherwise; only of what is here.

    ``versions`` are those that it was written in, where they are not the current ones.

    Raises:
        StateError: what was loaded cannot be saved.
    """
    wanted: dict[str, int] = versions if isinstance(versions, dict) else {}  # pyright: ignore[reportUnknownVariableType]
    here = {thing.state_id: thing for thing in things}
    items: list[dict[str, Any]] = records if isinstance(records, list) else []  # pyright: ignore[reportUnknownVariableType]
    lost: list[str] = []
    for fields in items:
        thing = here.get(fields.get("id", ""))
        if thing is not None and thing.state_class.state_name == fields.get("state"):
            given = fields.get("record")
            saved = _saved(thing, fields["version"], wanted)
            lost += differences(given, saved, thing.state_id)
    return lost[:_LIMIT]


def _saved(thing: Stateful, version: int, inner: Mapping[str, int]) -> states.Record:
    live = thing.save_state()
    return states.save(live, version, fds=Fds(), owner=thing.state_id, versions=inner)


def differences(given: object, saved: object, path: str) -> list[str]:
    """Return the paths at which two records differ; what only ``saved`` has is no loss."""
    if isinstance(given, dict) and isinstance(saved, dict):
        one: dict[str, object] = given  # pyright: ignore[reportUnknownVariableType]
        other: dict[str, object] = saved  # pyright: ignore[reportUnknownVariableType]
        if set(one) == {"version", "fields"}:  # a state inside another
            return differences(one["fields"], other.get("fields"), path)
        found: list[str] = []
        for name, value in one.items():
            if name == states.APART:
                found += _differences_apart(value, other.get(name), path)
            else:
                found += differences(value, other.get(name), f"{path}.{name}")
        return found
    if isinstance(given, list) and isinstance(saved, list):
        rows: list[object] = given  # pyright: ignore[reportUnknownVariableType]
        others: list[object] = saved  # pyright: ignore[reportUnknownVariableType]
        if len(rows) != len(others):
            return [f"{path} ({len(others)} instead of {len(rows)})"]
        pairs = enumerate(zip(rows, others, strict=True))
        return [d for n, (a, b) in pairs for d in differences(a, b, f"{path}[{n}]")]
    return [] if given == saved else [path]


def _differences_apart(given: object, saved: object, path: str) -> list[str]:
    """Compare optional fields; those of a version to come are not in ``saved``, but kept beside the object."""
    known: dict[str, object] = saved if isinstance(saved, dict) else {}  # pyright: ignore[reportUnknownVariableType]
    there: dict[str, object] = given if isinstance(given, dict) else {}  # pyright: ignore[reportUnknownVariableType]
    rest = {name: value for name, value in there.items() if name in known}
    return differences(rest, known, path)
