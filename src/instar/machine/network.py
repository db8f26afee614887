"""The line between a network card and its back end.

The card's driver kicks in the vCPU thread; frames move in the main loop, a batch for each time the machine lock is
taken, and only while the machine runs: what stands still may have been saved.
"""

from __future__ import annotations

from instar.devices.virtio_net.filter import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from instar.devices.virtio_net import NetState, VirtioNet
    from instar.machine.machine import Machine

    class Card(Protocol):
        """A pair of queues of a network card; called with the lock held."""

        def room(self) -> int:
            """Return how many frames it has room for."""
            ...

        def receive(self, frames: Sequence[bytes], /) -> int:
            """Take frames; return how many."""
            ...

        def transmit(self) -> bool:
            """Send a batch; return whether there is more."""
            ...

    class Backend(Protocol):
        """The host's side (``instar.netdev.NetBackend``)."""

        def attach(self, front: NetLine | None, /) -> None:
            """Connect or lose the line."""
            ...

        def accept_input(self) -> None:
            """Go on reading."""
            ...

        def set_offload(self, flags: int, /) -> None:
            """Say what the guest takes unfinished."""
            ...

        def use(self, *, active: bool) -> None:
            """Say whether the guest uses this queue."""
            ...

        def send_parts(self, parts: Sequence[memoryview], /) -> bool:
            """Send a frame behind its header; False: later, told by ``drained``."""
            ...

    class Queued(Protocol):
        """A back end with its queues."""

        def queue(self, index: int, /) -> Backend | None:
            """Return one of its queues; None if it has fewer."""
            ...


class NetLines:
    """All lines of a card.

    Args:
        machine: Whose lock and loop are used.
        count: Pairs of queues of the card.
        vnet_hdr: Frames have offload headers.
    """

    __slots__ = ("lines", "vnet_hdr")

    def __init__(self, machine: Machine, *, count: int, vnet_hdr: bool) -> None:
        self.vnet_hdr = vnet_hdr
        self.lines = [NetLine(machine, vnet_hdr=vnet_hdr) for _ in range(count)]

    @property
    def queues(self) -> int:
        """How many queues a back end has to have."""
        return len(self.lines)

    def connect(self, backend: Queued | None) -> None:
        """Take a back end, or lose it."""
        for index, line in enumerate(self.lines):
            line.connect(None if backend is None else backend.queue(index))


class NetLine:
    """Connects one pair of queues of a card to its queue of whatever back end the card has.

    Args:
        machine: Whose lock and loop are used.
        vnet_hdr: Frames have offload headers.
    """

    __slots__ = (
        "_active", "_backend", "_card", "_machine", "_offload", "_receiving", "_sending", "vnet_hdr",
    )  # fmt: skip

    def __init__(self, machine: Machine, *, vnet_hdr: bool) -> None:
        self.vnet_hdr = vnet_hdr
        self._machine = machine
        self._active = False  # until the card says so
        self._card: Card | None = None
        self._backend: Backend | None = None
        self._offload = -1  # what the guest takes, -1: not known yet
        self._sending = False  # scheduled
        self._receiving = False

    # The card's side: any thread, lock held

    def attach(self, card: Card) -> None:
        """Connect the card."""
        self._card = card

    def wake_transmit(self) -> None:
        """Have the card's frames sent."""
        if not self._sending:
            self._sending = True
            self._later(self._transmit)

    def wake_receive(self) -> None:
        """Have the back end asked for frames."""
        if not self._receiving:
            self._receiving = True
            self._later(self._receive)

    def set_offload(self, flags: int) -> None:
        """Remember what the guest takes; the back end is told before it is asked for frames."""
        self._offload = flags

    def use(self, *, active: bool) -> None:
        """Remember whether the guest uses the pair; the back end is told before it is asked for frames."""
        self._active = active

    def send(self, parts: Sequence[memoryview]) -> bool:
        """Send in the main loop; without a back end frames vanish, as without a cable."""
        return self._backend is None or self._backend.send_parts(parts)

    # The back end's side: main thread

    def connect(self, backend: Backend | None) -> None:
        """Take a back end, or lose it."""
        if self._backend is not None:
            self._backend.attach(None)
        self._backend = backend
        if backend is not None:
            backend.attach(self)
        with self._machine.lock:
            self.wake_receive()
            self.wake_transmit()

    def room(self) -> int:
        """Return how many frames the card takes; after 0 the back end is asked again when it does."""
        if self._card is None or not self._runs():
            return 0
        with self._machine.lock:
            return self._card.room()

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Hand frames to the card; return how many it took."""
        if self._card is None or not self._runs():
            return 0
        with self._machine.lock:
            return self._card.receive(frames)

    def drained(self) -> None:
        """Go on sending."""
        with self._machine.lock:
            self.wake_transmit()

    # In the main loop

    def _runs(self) -> bool:
        """Return whether the machine runs; if not, ask again once it does."""
        if not self._machine.running:
            with self._machine.lock:
                self.wake_receive()
        return self._machine.running

    def _later(self, work: Callable[[], object]) -> None:
        machine = self._machine
        machine.loop.call_threadsafe(lambda: machine.when_running(work))

    def _transmit(self) -> None:
        self._sending = False
        if self._card is not None and self._card.transmit():
            self.wake_transmit()

    def _receive(self) -> None:
        self._receiving = False
        backend = self._backend
        if backend is None:
            return
        backend.use(active=self._active)
        if self._offload >= 0:
            backend.set_offload(self._offload)
        backend.accept_input()


class NetCard:
    """A network card as monitors see it.

    Attributes:
        id: Unique name: the device's id, or its driver and slot.
        model: Driver's name as in ``-device``.
        netdev: Name of its back end, which may be absent.
    """

    __slots__ = ("_device", "_machine", "id", "model", "netdev")

    def __init__(
        self, machine: Machine, device: VirtioNet, ident: str, model: str, netdev: str
    ) -> None:
        self._machine = machine
        self._device = device
        self.id = ident
        self.model = model
        self.netdev = netdev

    @property
    def mac(self) -> str:
        """Its address now."""
        return shown(self._device.state.mac)

    @property
    def link(self) -> bool:
        """Whether the cable is plugged in."""
        return self._device.state.link

    def set_link(self, *, up: bool) -> None:
        """Plug or pull the cable; the guest is told."""
        self._machine.locked(lambda: self._device.set_link(up=up))

    @property
    def filters_vlans(self) -> bool:
        """Whether the guest says which VLANs it listens to."""
        return self._device.filters_vlans

    def filter(self) -> NetState:
        """Return what the guest wants to receive."""
        return self._device.state
