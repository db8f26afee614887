"""Events of the machine, under their QMP names, from one place to whoever listens."""

from __future__ import annotations

from time import time_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Data = Mapping[str, object]
    Listener = Callable[[str, Data], object]


class EventBus:
    """Hand each event to every subscriber, in the order of subscription, in the main thread.

    Attributes:
        stamp_ns: When the event that is being delivered happened, ns since the epoch.
    """

    __slots__ = ("_held", "_listeners", "stamp_ns")

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._held: list[tuple[int, str, Data]] | None = None
        self.stamp_ns = 0

    def subscribe(self, listener: Listener) -> None:
        """Call ``listener(name, data)`` for each event from now on."""
        self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Stop calling ``listener``; not being subscribed is fine."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def hold(self) -> None:
        """Keep events, in order and with their times, until :meth:`release`: the listeners are not there yet."""
        self._held = []

    def release(self) -> None:
        """Deliver what was kept."""
        held, self._held = self._held or [], None
        for stamp_ns, name, data in held:
            self._deliver(stamp_ns, name, data)

    def emit(self, name: str, data: Data | None = None) -> None:
        """Send one event (``name`` as in QMP, such as ``STOP``)."""
        if self._held is None:
            self._deliver(time_ns(), name, data or {})
        else:
            self._held.append((time_ns(), name, data or {}))

    def _deliver(self, stamp_ns: int, name: str, data: Data) -> None:
        self.stamp_ns = stamp_ns
        for listener in tuple(self._listeners):
            listener(name, data)
