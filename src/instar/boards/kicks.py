"""Queue notifications that come through event descriptors, so that the vCPU need not wait until one is served.

The kernel takes the guest's write to a transport's notification register and signals a descriptor; the main loop serves
the queue. Across an update no notification is lost: what came before the stop is served before anything is saved
(``drain``), and what the descriptor of a program that is gone may have held is made good by one more look at every
queue before the guest runs (``look_again``): serving a queue without need is harmless.

Source: own; virtio 1.2, 4.2.3.3 (notification register); Linux Documentation/virt/kvm/api.rst, 4.59.
"""

from __future__ import annotations

import os

from instar.devices.virtio_mmio import QUEUE_NOTIFY
from instar.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final, Protocol

    from instar.devices.virtio_mmio import VirtioMmio

    Connect = Callable[[int, int, int, int], object]  # guest address, bytes, value, descriptor
    Locked = Callable[[Callable[[], object]], object]

    class Watcher(Protocol):
        """The main loop, as far as this needs it."""

        def watch(self, fd: int, *, readable: Callable[[], object] | None = None) -> None:
            """Call ``readable`` when the descriptor is ready."""
            ...


_REGISTER_SIZE: Final = 4  # bytes of a notification


class Kick:
    """The descriptor of one queue."""

    __slots__ = ("fd", "index", "transport")

    def __init__(self, transport: VirtioMmio, index: int) -> None:
        self.transport = transport
        self.index = index
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def take(self) -> bool:
        """Return whether the guest has notified since the last time."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return False
        return True

    def serve(self) -> None:
        """Serve the queue if it is in use; lock held."""
        if self.transport.queues[self.index].state.ready:
            self.transport.notify(self.index)


class Kicks:
    """All queues of a board, for as long as the program is.

    Args:
        connect: The back end's ``ioeventfd``: (guest address, bytes, value, descriptor); it raises HostError.
        loop: The main loop.
        locked: Runs a callable with the machine lock held.
        on_bug: Told of what serving a queue raised, as the bus does for an access by a vCPU: the machine stops, the
            main loop goes on.
    """

    __slots__ = ("_connect", "_kicks", "_locked", "_loop", "_on_bug")

    def __init__(
        self,
        connect: Connect,
        loop: Watcher,
        locked: Locked,
        on_bug: Callable[[BaseException], object],
    ) -> None:
        self._connect = connect
        self._loop = loop
        self._locked = locked
        self._on_bug = on_bug
        self._kicks: list[Kick] = []

    def add(self, transports: Iterable[tuple[int, VirtioMmio]]) -> None:
        """Take the notifications of these transports, each at its guest address.

        Raises:
            HostError: the host has no descriptors left or refused; what was connected before works.
        """
        for base, transport in transports:
            for index in range(len(transport.queues)):
                try:
                    kick = Kick(transport, index)
                except OSError as e:
                    raise HostError(
                        f"no descriptor for the notifications of a queue: {os.strerror(e.errno or 0)}"
                    ) from e
                self._kicks.append(kick)
                self._connect(base + QUEUE_NOTIFY, _REGISTER_SIZE, index, kick.fd)
                self._loop.watch(kick.fd, readable=self._handler(kick))

    def _handler(self, kick: Kick) -> Callable[[], object]:
        return lambda: self._locked(lambda: self._serve(kick))

    def _serve(self, kick: Kick) -> None:
        if not kick.take():
            return
        try:
            kick.serve()
        except Exception as e:  # our own fault, but a guest may know how to bring it about
            self._on_bug(e)

    def drain(self) -> None:
        """Serve what has come, once the vCPUs stand still; lock held."""
        for kick in self._kicks:
            self._serve(kick)

    def look_again(self) -> None:
        """Serve every queue in use, before the vCPUs run after a stop; lock held."""
        for kick in self._kicks:
            kick.serve()
