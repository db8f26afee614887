"""virtio-vsock: stream sockets between the guest and unix sockets of the host.

A notification only asks for :meth:`VirtioVsock.pump`; packets move in the main loop, while the machine runs. What the
guest sent stays in its ring until then, and what the host sent stays in the host's socket until the guest has room,
so little is ever in between.

Source: virtio 1.2, 5.10 (device 19).
"""

from __future__ import annotations

from instar import log
from instar.devices.virtio_vsock import packet as p
from instar.devices.virtio_vsock.connection import Connection
from instar.devices.virtio_vsock.state import (
    ESTABLISHED,
    MAX_CONNECTIONS,
    NO_RECEIVE,
    NO_SEND,
    OWE_CREDIT,
    OWE_REQUEST,
    OWE_RESPONSE,
    VsockConnectionState,
    VsockState,
)
from instar.errors import QueueError
from instar.virtio.device import VirtioDevice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar, Final

    from instar.cpr.state import State
    from instar.devices.virtio_vsock.connection import VsockHost
    from instar.virtio.queue import Chain, Queue

    Key = tuple[int, int]  # the host's port, the guest's port

F_STREAM: Final = 1
FIRST_HOST_PORT: Final = 1 << 30
RESETS_HELD: Final = 64  # resets owed beyond which the guest's packets wait
_TRANSPORT_RESET: Final = bytes(4)  # struct virtio_vsock_event, id 0
_WORD: Final = 0xFFFF_FFFF


class VirtioVsock(VirtioDevice):
    """Connect ports of the guest with unix sockets of the host.

    Args:
        host: The unix sockets.
        guest_cid: The guest's address, 3 or more.
        state_id: Unique name of its state.
    """

    __slots__ = ("_active", "_by_ident", "_by_key", "_queues", "guest_cid", "host", "state")
    state_class: ClassVar[type[State]] = VsockState
    device_id = 19
    queues: ClassVar[tuple[str, ...]] = ("rx", "tx", "event")

    def __init__(self, host: VsockHost, *, guest_cid: int, state_id: str) -> None:
        super().__init__(state_id)
        self.host = host
        self.guest_cid = guest_cid
        self._queues: dict[str, Queue] = {}  # those that the driver has notified
        self._adopt(VsockState())
        host.attach(self)

    # ------------------------------------------------------------------- life

    def _adopt(self, state: VsockState) -> None:
        self.state = state
        self._by_key: dict[Key, Connection] = {}
        self._by_ident: dict[int, Connection] = {}
        self._active: dict[Key, Connection] = {}  # may have something for the guest; in turn
        for each in state.connections:
            connection = self._by_ident[each.ident] = Connection(each, self.host)
            self._by_key[each.host_port, each.guest_port] = connection
            self._active[each.host_port, each.guest_port] = connection

    def offered(self) -> int:
        """Return the feature bits: streams."""
        return F_STREAM

    def config(self) -> bytes:
        """Return the configuration space: the guest's address."""
        return self.guest_cid.to_bytes(8, "little")

    def reset(self) -> None:
        """Bring the reset state; the host's peers find their connections closed."""
        self.host.close(list(self._by_ident))
        self._queues.clear()
        self._adopt(VsockState(next_port=self.state.next_port))

    def resume(self, queue: Queue) -> None:
        """Go on after a load."""
        self._notified(queue)

    def save_state(self) -> VsockState:
        """Return the live state."""
        self.state.connections = [connection.state for connection in self._by_ident.values()]
        return self.state

    def load_state(self, state: VsockState) -> None:
        """Go on from ``state``; if a connection's other end did not come along, all are lost and the guest is told."""
        here = set(self.host.idents())
        wanted = {connection.ident for connection in state.connections}
        if wanted <= here:
            self.host.close(sorted(here - wanted))
        else:
            log.warning(
                f"{self.state_id}: {len(wanted)} connections did not come along; the guest is told"
            )
            self.host.close(sorted(here))
            state = VsockState(next_port=state.next_port, transport_reset=True)
        self._adopt(state)

    def post_load(self) -> None:
        """Ask the host for what the connections wait for."""
        for connection in self._by_ident.values():
            connection.watch()

    # ------------------------------------------------------------------- the guest's notifications

    def on_rx(self, queue: Queue) -> None:
        """There is room for packets to the guest."""
        self._notified(queue)

    def on_tx(self, queue: Queue) -> None:
        """There are packets of the guest."""
        self._notified(queue)

    def on_event(self, queue: Queue) -> None:
        """There is room for events."""
        self._notified(queue)

    def _notified(self, queue: Queue) -> None:
        self._queues[queue.name] = queue
        self.host.later()

    # ------------------------------------------------------------------- the host's side

    def pump(self) -> None:
        """Move packets both ways until nothing moves or it is others' turn; in the main thread."""
        self._run("event", self._tell_reset)
        self._run("tx", self._serve)
        self._run("rx", self._fill)
        for connection in list(self._by_ident.values()):
            connection.watch()
        self._run("tx", self._again)

    def host_ready(self, ident: int) -> None:
        """Go on with a stream that is readable or writable."""
        connection = self._by_ident.get(ident)
        if connection is None:
            return
        connection.readable = True  # if it is not, trying says so
        connection.flush()
        self._settle(connection)
        self.host.later()

    def host_connects(self, ident: int, port: int) -> bool:
        """Ask the guest whether it accepts a connection to ``port``."""
        rx = self._queues.get("rx")
        if rx is None or not rx.state.ready or len(self._by_ident) >= MAX_CONNECTIONS:
            return False
        while (self.state.next_port, port) in self._by_key:
            self._next_port()
        connection = self._add(ident, self.state.next_port, port)
        self._next_port()
        connection.state.owed = OWE_REQUEST
        self.host.later()
        return True

    def _next_port(self) -> None:
        self.state.next_port = (self.state.next_port + 1) & _WORD or FIRST_HOST_PORT

    def _run(self, name: str, work: Callable[[Queue], object]) -> None:
        queue = self._queues.get(name)
        if queue is None or not queue.state.ready:
            return
        finished: list[bool] = []

        def guarded(served: Queue) -> None:
            work(served)
            finished.append(True)

        self.port.run(guarded, queue)
        if not finished:  # the driver has to reset the device first
            self._queues.clear()

    # ------------------------------------------------------------------- packets of the guest

    def _serve(self, queue: Queue) -> None:
        for chain in queue.peek():
            if len(self.state.resets) >= RESETS_HELD:
                return
            header = p.Packet(chain.read(0, p.HEADER_SIZE))
            if header.op == p.RW and header.length > chain.size - p.HEADER_SIZE:
                raise QueueError(
                    f"packet of {header.length} bytes in a chain of {chain.size - p.HEADER_SIZE}"
                )
            self._packet(header, chain)
            queue.complete(chain, 0)

    def _again(self, queue: Queue) -> None:
        """Ask for another turn if packets wait, unless they wait for room in the other ring."""
        if len(self.state.resets) < RESETS_HELD and queue.pending():
            self.host.later()

    def _packet(self, header: p.Packet, chain: Chain) -> None:
        if header.src_cid != self.guest_cid:
            log.guest(self.state_id, f"packet from address {header.src_cid}, which it is not")
            return
        key = header.dst_port, header.src_port
        connection = self._by_key.get(key)
        if header.dst_cid != p.HOST_CID or header.type != p.STREAM or connection is None:
            self._stray(header, key)
            return
        state = connection.state
        state.peer_buffer, state.peer_forwarded = header.buffer, header.forwarded
        if not self._act(connection, header, chain):
            self._drop(connection, tell=header.op != p.RST)
            return
        self._settle(connection)

    def _stray(self, header: p.Packet, key: Key) -> None:
        """Answer a packet that belongs to no connection."""
        right = header.dst_cid == p.HOST_CID and header.type == p.STREAM
        if header.op == p.REQUEST and right and len(self._by_ident) < MAX_CONNECTIONS:
            ident = self.host.connect(header.dst_port)
            if ident >= 0:
                connection = self._add(ident, *key)
                state = connection.state
                state.stage, state.owed = ESTABLISHED, OWE_RESPONSE
                state.peer_buffer, state.peer_forwarded = header.buffer, header.forwarded
                return
        if header.op != p.RST:
            self._owe_reset(key)

    def _act(self, connection: Connection, header: p.Packet, chain: Chain) -> bool:
        """Do what a packet says; False ends the connection."""
        state, op = connection.state, header.op
        if op == p.RW:
            return connection.take(chain, header.length)
        if op == p.RESPONSE and state.stage != ESTABLISHED and not state.owed & OWE_REQUEST:
            state.stage = ESTABLISHED
            self.host.accepted(state.ident, state.host_port)
        elif op == p.SHUTDOWN and state.stage == ESTABLISHED:
            state.guest_shut |= header.flags & (NO_RECEIVE | NO_SEND)
        elif op == p.CREDIT_REQUEST:
            state.owed |= OWE_CREDIT
        else:
            return op == p.CREDIT_UPDATE
        return True

    def _settle(self, connection: Connection) -> None:
        """Draw the consequences of a change."""
        connection.end_output()
        if connection.over:
            self._drop(connection, tell=True)
        else:
            state = connection.state
            self._active[state.host_port, state.guest_port] = connection

    # ------------------------------------------------------------------- packets to the guest

    def _fill(self, queue: Queue) -> None:
        for chain in queue.peek():
            if chain.room < p.HEADER_SIZE:
                raise QueueError(f"buffer of {chain.room} bytes, a packet has {p.HEADER_SIZE}")
            length = self._put(chain)
            if not length:
                return
            queue.complete(chain, length)

    def _put(self, chain: Chain) -> int:
        """Put one packet into ``chain``, of those whose turn it is; return its length, 0 if there is none."""
        while self._active:
            key, connection = next(iter(self._active.items()))
            del self._active[key]
            length = connection.fill(chain, self.guest_cid)
            if length:
                self._active[key] = connection  # others first
            if connection.over:
                self._drop(connection, tell=True)
            if length:
                return length
        if not self.state.resets:
            return 0
        both = self.state.resets.pop(0)
        chain.write(p.header(self.guest_cid, both >> 32, both & _WORD, p.RST))
        return p.HEADER_SIZE

    def _tell_reset(self, queue: Queue) -> None:
        if not self.state.transport_reset:
            return
        for chain in queue.peek():
            if chain.room < len(_TRANSPORT_RESET):
                raise QueueError(f"event buffer of {chain.room} bytes")
            chain.write(_TRANSPORT_RESET)
            queue.complete(chain, len(_TRANSPORT_RESET))
            self.state.transport_reset = False
            return

    # ------------------------------------------------------------------- connections

    def _add(self, ident: int, host_port: int, guest_port: int) -> Connection:
        state = VsockConnectionState(ident=ident, host_port=host_port, guest_port=guest_port)
        connection = self._by_ident[ident] = Connection(state, self.host)
        self._by_key[host_port, guest_port] = connection
        self._active[host_port, guest_port] = connection
        return connection

    def _drop(self, connection: Connection, *, tell: bool) -> None:
        state = connection.state
        key = state.host_port, state.guest_port
        del self._by_key[key], self._by_ident[state.ident]
        self._active.pop(key, None)
        self.host.close([state.ident])
        if tell:
            self._owe_reset(key)

    def _owe_reset(self, key: Key) -> None:
        self.state.resets.append(key[0] << 32 | key[1])
