"""Which version of every state two programs have in common; the newer one steps down to what the other reads.

Not on the resume path. Source: own; docs/decisions/0009-state-versions.md.
"""

from __future__ import annotations

from instar.cpr.errors import StateInvalidError
from instar.cpr.state import registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def readable_versions() -> dict[str, tuple[int, int]]:
    """Return the oldest and the newest version that this program reads (and writes) of every state it knows."""
    return {name: (cls.state_oldest, cls.state_version) for name, cls in registry().items()}


def versions_for(announced: object) -> dict[str, int]:
    """Return what to write for a reader that announced its :func:`readable_versions` (untrusted).

    Where no version suits both, the one that is next to ours is returned; saving such a state is refused.

    Raises:
        StateInvalidError: it is not an announcement.
    """
    if not isinstance(announced, dict):
        raise StateInvalidError("the reader's versions are not a record; nothing was written")
    wanted: dict[str, int] = {}
    theirs: dict[object, object] = announced  # pyright: ignore[reportUnknownVariableType]
    for name, (_, newest) in readable_versions().items():
        match theirs.get(name, (1, newest)):
            case [int() as low, int() as high] if 1 <= low <= high:
                wanted[name] = max(low, min(high, newest))
            case _:
                raise StateInvalidError(f"the reader's versions of {name} are not a range")
    return wanted


def not_current(versions: Mapping[str, int]) -> dict[str, int]:
    """Return those that are not what this program writes anyway: with none of them writing is shorter."""
    current = {name: newest for name, (_, newest) in readable_versions().items()}
    return {name: version for name, version in versions.items() if version != current.get(name)}
