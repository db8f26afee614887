"""Events of the machine, under their QMP names, from one place to whoever listens."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Data = Mapping[str, object]
    Listener = Callable[[str, Data], object]


class EventBus:
    """Hand each event to every subscriber, in the order of subscription, in the main thread."""

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        """Call ``listener(name, data)`` for each event from now on."""
        self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Stop calling ``listener``; not being subscribed is fine."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def emit(self, name: str, data: Data | None = None) -> None:
        """Send one event (``name`` as in QMP, such as ``STOP``)."""
        for listener in tuple(self._listeners):
            listener(name, data or {})
