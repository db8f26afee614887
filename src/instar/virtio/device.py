"""The base of every virtio device: pure logic, driven by a transport."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, ClassVar, Protocol

    from instar.cpr.state import State
    from instar.virtio.queue import Queue

    Handler = Callable[["VirtioDevice", Queue], None]

    class Port(Protocol):
        """What a transport does for its device."""

        @property
        def features(self) -> int:
            """Return the negotiated feature bits; 0 before the negotiation ended."""
            ...

        @property
        def queues(self) -> list[Queue]:
            """Return the queues in the order of their numbers."""
            ...

        def run(self, work: Callable[[Queue], object], queue: Queue, /) -> None:
            """Do ``work(queue)`` outside a notification: guest faults are handled, the driver is told."""
            ...

        def config_changed(self) -> None:
            """Tell the driver to read the configuration space again."""
            ...

        def broken(self, why: str, /) -> None:
            """Ask for a reset: the host's side of the device is gone; ``why`` is logged."""
            ...


class VirtioDevice:
    """One device type.

    A subclass declares ``device_id`` and ``queues``; for each queue name it has ``on_<name>(queue)``, called when the
    driver added chains. Everything the guest can tell apart is in its ``state``; its other slots are handles.

    Attributes:
        device_id: As in virtio 1.2, 5.
        queues: Names, in the order of their numbers.
        queue_size: Largest size offered, a power of 2.
        port: The transport; set by it before the first call.
    """

    __slots__ = ("port", "state_id")
    device_id: ClassVar[int] = 0
    queues: ClassVar[tuple[str, ...]] = ()
    queue_size: ClassVar[int] = 256
    handlers: ClassVar[tuple[Handler, ...]] = ()
    port: Port
    if TYPE_CHECKING:
        state_class: ClassVar[type[State]]

        def save_state(self) -> State:
            """Return the live state; every subclass has its own."""
            ...

        def load_state(self, state: Any, /) -> None:  # noqa: ANN401 - each takes its own state_class
            """Go on from ``state``."""
            ...

    def __init__(self, state_id: str) -> None:
        self.state_id = state_id

    def __init_subclass__(cls) -> None:
        """Refuse a class with a queue that nobody serves."""
        missing = [name for name in cls.queues if not callable(getattr(cls, f"on_{name}", None))]
        if missing:
            raise TypeError(f"{cls.__name__} has no on_{missing[0]}() for its queue")
        cls.handlers = tuple(getattr(cls, f"on_{name}") for name in cls.queues)

    def offered(self) -> int:
        """Return the feature bits of this device type that the driver may choose from."""
        return 0

    def withheld(self) -> int:
        """Return the transport's feature bits that this device cannot have."""
        return 0

    def config(self) -> bytes:
        """Return the configuration space."""
        return b""

    def write_config(self, offset: int, data: bytes) -> None:
        """Take a write to the configuration space; what is read-only ignores it."""

    def begin(self, queues: Sequence[Queue], *, again: bool) -> None:
        """Serve the rings: the driver is ready, or (``again``) was when the state just loaded was saved."""

    def stop(self) -> None:
        """Return when nothing is in flight on the host: all chains taken were answered."""

    def reset(self) -> None:
        """Bring the reset state; nothing is in flight."""

    def resume(self, queue: Queue) -> None:
        """Go on after a load with what was under way on ``queue``."""
