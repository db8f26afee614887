"""Whether a state can be written for an older reader, and what it loses on the way there and back; nothing is changed.

Source: own; docs/decisions/0009-state-versions.md.
"""

from __future__ import annotations

from instar.cpr.errors import StateTooNewError, StateTooOldError
from instar.cpr.state import State, inner, load, save

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

UNKNOWN: Final = 0  # in place of a version: the reader does not know the state at all


class _Numbers:
    """Carries descriptors as what they are here, numbers."""

    __slots__ = ("_fds",)

    def __init__(self) -> None:
        self._fds: dict[str, int] = {}

    def resave(self, name: str, _ident: int, fd: int, /, *, owner: str) -> None:
        self._fds[f"{owner}{name}"] = fd

    def take(self, name: str, _ident: int, /) -> int:
        return self._fds.get(name, -1)


def differing(cls: type[State], versions: Mapping[str, int]) -> list[type[State]]:
    """Return what of ``cls`` and the states inside it ``versions`` has in another version than the current one."""
    classes = (cls, *inner(cls, cls.state_version).values())
    return [c for c in classes if versions.get(c.state_name, c.state_version) != c.state_version]


def check_writable(
    ident: str, cls: type[State], versions: Mapping[str, int], program: str, after: str
) -> None:
    """Refuse versions that this program does not write, of a state and of those inside it.

    Args:
        ident: The object whose state it is, for people.
        cls: Its state.
        versions: What the reader wants, by state name; 0: it does not know the state.
        program: Version of this program.
        after: What state things are in, as ``"the guest was not stopped"``.

    Raises:
        StateTooOldError, StateTooNewError: There is no step to what is wanted; the text names both versions.
    """
    for one in differing(cls, versions):
        version = versions[one.state_name]
        if one.state_oldest <= version < one.state_version:
            continue
        if version == UNKNOWN:
            raise StateTooNewError(
                f"{ident}: the reader does not know state {one.state_name}, "
                f"this program ({program}) writes {span(one)}; {after}"
            )
        error = StateTooOldError if version < one.state_oldest else StateTooNewError
        raise error(
            f"{ident}: the reader wants state {one.state_name} as v{version}, "
            f"this program ({program}) writes {span(one)}; {after}"
        ).hint(
            f"go by a version that reads {one.state_name} as v{version} and as {span(one)}",
        )


def span(cls: type[State]) -> str:
    """Return the versions of a state that this program reads and writes, for people."""
    if cls.state_oldest == cls.state_version:
        return f"v{cls.state_version}"
    return f"v{cls.state_oldest} to v{cls.state_version}"


def losses(live: State, version: int, versions: Mapping[str, int]) -> list[str]:
    """Return the paths of the fields that do not come back as they are when ``live`` goes to ``version`` and up again.

    Args:
        live: The state.
        version: That an older reader knows.
        versions: Of the states inside, by name, as for :func:`instar.cpr.state.save`.

    Raises:
        StateError: There is no way down, or the older version could not have such a state.
    """
    fds = _Numbers()
    record = save(live, version, fds=fds, versions=versions)
    return _differences(live, load(type(live), version, record, fds=fds), "")


def _differences(one: object, other: object, path: str) -> list[str]:
    if isinstance(one, State) and isinstance(other, State):
        found: list[str] = []
        for name in type(one).state_fields:
            below = f"{path}.{name}" if path else name
            found += _differences(getattr(one, name), getattr(other, name), below)
        return found
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):  # pyright: ignore[reportUnknownArgumentType]
        pairs: list[tuple[object, object]] = list(zip(one, other, strict=True))  # pyright: ignore[reportUnknownArgumentType]
        if any(isinstance(item, State) for item, _ in pairs):
            return [
                d for n, (a, b) in enumerate(pairs) for d in _differences(a, b, f"{path}[{n}]")
            ]
    return [] if one == other else [path]
