"""What must cross an update implements this, by shape alone."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Protocol

    from instar.cpr.state import State

    class Stateful(Protocol):
        """Something whose state crosses an update."""

        @property
        def state_id(self) -> str:
            """Unique name in the machine."""
            ...

        state_class: ClassVar[type[State]]  # what save_state returns and load_state takes

        def save_state(self) -> State:
            """Return live state or a copy; the source does not change."""
            ...

        def load_state(self, state: Any, /) -> None:  # noqa: ANN401 - each takes its own state_class
            """Take over ``state``.

            An optional ``check_against(state)`` was called before anything was loaded: it raises StateError for a state
            that does not fit this object, and changes nothing. An optional ``post_load()`` is called once everything is
            loaded, to recompute outputs such as interrupts.
            """
            ...
