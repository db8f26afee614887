"""The core's state as an update sees it: one object for each hart, one for what they share, one for what they are."""

from __future__ import annotations

from instar.cpr.errors import StateInvalidError
from instar.cpu.rv64.state import CoreState, HartState, ModelState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from instar.cpr.state import State
    from instar.cpu.rv64 import Core


class HartBox:
    """One hart of a core, to be saved and loaded as named fields."""

    __slots__ = ("_core", "_hart", "state_id")
    state_class: ClassVar[type[State]] = HartState

    def __init__(self, core: Core, hart: int) -> None:
        self._core = core
        self._hart = hart
        self.state_id = f"cpu/{hart}"

    def save_state(self) -> HartState:
        """Return a copy of the hart's architectural state; the hart must be parked."""
        return HartState(**self._core.save_hart(self._hart))

    def load_state(self, state: HartState) -> None:
        """Set the hart's architectural state; its caches start empty."""
        self._core.load_hart(
            self._hart, {name: getattr(state, name) for name in HartState.state_fields}
        )


class CoreBox:
    """What the harts share: instruction count, turn, virtual time."""

    __slots__ = ("_core",)
    state_id = "cpu"
    state_class: ClassVar[type[State]] = CoreState

    def __init__(self, core: Core) -> None:
        self._core = core

    def save_state(self) -> CoreState:
        """Return a copy; the harts must be parked."""
        return CoreState(**self._core.save_shared())

    def check_against(self, state: CoreState) -> None:
        """Refuse the turn of a hart that this core does not have (StateInvalidError)."""
        if state.turn >= self._core.harts:
            raise StateInvalidError(f"cpu.turn: {state.turn}, limit {self._core.harts - 1}")

    def load_state(self, state: CoreState) -> None:
        """Take over; load this before the harts."""
        self._core.load_shared({name: getattr(state, name) for name in CoreState.state_fields})


class ModelBox:
    """Checks that the harts found are the harts that were left."""

    __slots__ = ("_state",)
    state_id = "cpu-model"
    state_class: ClassVar[type[State]] = ModelState

    def __init__(self, state: ModelState) -> None:
        self._state = state

    def save_state(self) -> ModelState:
        """Return what the command line decided."""
        return self._state

    def check_against(self, state: ModelState) -> None:
        """Refuse other harts (StateInvalidError); nothing was changed."""
        for name in ModelState.state_fields:
            theirs, ours = getattr(state, name), getattr(self._state, name)
            if theirs != ours:
                raise StateInvalidError(
                    f"cpu-model.{name}: the guest has {theirs}, this command line gives {ours}"
                )

    def load_state(self, state: ModelState) -> None:
        """Do nothing more: it is what was checked."""
