"""What a state loses on its way through an older version, found by going there and back; nothing is changed."""

from __future__ import annotations

from instar.cpr.state import State, load, save

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class _Numbers:
    """Carries descriptors as what they are here, numbers."""

    __slots__ = ("_fds",)

    def __init__(self) -> None:
        self._fds: dict[str, int] = {}

    def resave(self, name: str, _ident: int, fd: int, /, *, owner: str) -> None:
        self._fds[f"{owner}{name}"] = fd

    def take(self, name: str, _ident: int, /) -> int:
        return self._fds.get(name, -1)


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
