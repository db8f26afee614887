"""The front end of one back end: negotiation, memory, rings that start and stop, and the end of it all.

Called with the machine lock held, from the vCPU thread or the main thread; whatever the back end does wrong hangs up on
it and is told to the device (``gone``), never raised at the guest.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
from time import monotonic_ns

from instar import log
from instar.errors import ConfigError, HostError
from instar.vhostuser import protocol as p
from instar.vhostuser.connection import Connection
from instar.vhostuser.ring import BYTES, Ring
from instar.vhostuser.state import FrontendState, RingState
from instar.virtio.features import VERSION_1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import RLock
    from collections.abc import Callable, Sequence
    from typing import ClassVar, Final

    from instar.cpr.fds import Fds
    from instar.cpr.state import State
    from instar.loop import Loop
    from instar.memory.backend import RamBlock

FD_OWNER: Final = "vhost-user"
QUIET_NS: Final = 10_000_000_000  # how long a stop waits for the back end to finish its work
RINGS_GPA: Final = 1 << 56  # where the back end sees our rings; no guest has RAM there
_SHRINK_AND_GROW: Final = 0x0002 | 0x0004  # F_SEAL_*: a back end must not cut memory off under us
_CONNECTION, _RINGS, _INFLIGHT = 0, 1, 2  # ids of named descriptors


class Plan:
    """One ring as the driver made it: its number, chains, guest address of its descriptors, heads in flight."""

    __slots__ = ("desc", "heads", "index", "size")

    def __init__(self, index: int, size: int, desc: int, heads: Sequence[int]) -> None:
        self.index = index
        self.size = size
        self.desc = desc
        self.heads = heads


class Frontend:
    """One back end and its rings.

    Args:
        ident: The character device that names the socket.
        path: Where the back end listens.
        count: Rings.
        ram: Guest RAM with its guest addresses.
        loop: The main loop.
        lock: The machine's.
        running: Whether the machine runs: rings stand still with it.
        fds: Named descriptors; a connection of the program before is used as it is.
        patience_s: How long to wait for somebody to listen.

    Attributes:
        features: What the back end offers, or the last one did.
        inherited: There was a program before, whose state is to come.

    Raises:
        ConfigError: RAM cannot be shared.
        HostError, BackendError: nobody listens, or does not speak the protocol. Nothing is left behind.
    """

    __slots__ = (
        "_call", "_connection", "_count", "_fds", "_fresh", "_gone", "_kicks", "_lock", "_loop", "_map", "_path",
        "_plans", "_ram", "_running", "_served", "_started", "bases", "driver_features", "features", "id", "inherited",
        "protocol", "rings", "state_id",
    )  # fmt: skip
    state_class: ClassVar[type[State]] = FrontendState

    def __init__(  # noqa: PLR0913 - handles, named
        self,
        ident: str,
        path: str,
        count: int,
        *,
        ram: Sequence[tuple[int, RamBlock]],
        loop: Loop,
        lock: RLock,
        running: Callable[[], bool],
        fds: Fds,
        patience_s: float = 0.0,
    ) -> None:
        self.id = ident
        self.state_id = f"vhost-user/{ident}"
        self._path = path
        self._count = count
        self._ram = ram
        self._loop = loop
        self._lock = lock
        self._running = running
        self._fds = fds
        self.features = self.protocol = self.driver_features = 0
        self._served: Callable[[], object] = _nothing
        self._gone: Callable[[str], object] = _ignore
        self._plans: list[Plan] = []
        self._started = False
        self._fresh = True  # the back end has not seen our rings as they are
        self._connection: Connection | None = None
        self.bases: list[int] = [0] * count
        _share(ident, ram)
        self.inherited = fds.find(self.state_id, _RINGS) >= 0
        self._map = self._map_rings()
        whole = memoryview(self._map)
        self.rings = [Ring(whole[n * BYTES : (n + 1) * BYTES]) for n in range(count)]
        self._call = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._kicks = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(count)]
        loop.watch(self._call, readable=self._on_call)
        connection = fds.find(self.state_id, _CONNECTION)
        if connection >= 0:
            self._fresh = False
            self._take(Connection.adopt(connection))
        elif (
            not self.inherited
        ):  # else its back end was gone before: the next reset looks for a new one
            self._connect(patience_s)

    def attach(self, served: Callable[[], object], gone: Callable[[str], object]) -> None:
        """Call ``served()`` when the back end used chains, ``gone(why)`` when there is none any more."""
        self._served, self._gone = served, gone

    @property
    def connected(self) -> bool:
        """Whether there is a back end."""
        return self._connection is not None

    # ------------------------------------------------------------------- the connection

    def reconnect(self) -> None:
        """Connect again if the back end is gone; it stays gone if nobody listens."""
        if self._connection is None:
            try:
                self._connect(0.0)
            except (HostError, p.BackendError) as e:
                log.limited("warning", self.state_id, str(e))

    def _connect(self, patience_s: float) -> None:
        connection = Connection.open(self._path, patience_s)
        try:
            self._negotiate(connection)
        except BaseException:
            connection.close()
            raise
        self._fresh = True
        self._take(connection)
        self._fds.resave(
            self.state_id, _CONNECTION, connection.fileno(), kind="socket", owner=FD_OWNER
        )

    def _take(self, connection: Connection) -> None:
        self._connection = connection
        fd = connection.fileno()
        self._loop.call_threadsafe(lambda: self._watch(connection, fd))

    def _watch(self, connection: Connection, fd: int) -> None:
        if self._connection is connection:
            self._loop.watch(fd, readable=self._on_readable)

    def _negotiate(self, connection: Connection) -> None:
        connection.send(p.SET_OWNER)
        features = connection.ask_u64(p.GET_FEATURES)
        for bit, name in ((p.F_PROTOCOL_FEATURES, "protocol features"), (VERSION_1, "virtio 1")):
            if not features & bit:
                raise p.BackendError(f"{self._path}: the back end does not offer {name}")
        protocol = connection.ask_u64(p.GET_PROTOCOL_FEATURES) & p.SPOKEN
        connection.send(p.SET_PROTOCOL_FEATURES, p.U64.pack(protocol))
        connection.acknowledges = bool(protocol & p.P_REPLY_ACK)
        if protocol & p.P_MQ:
            queues = connection.ask_u64(p.GET_QUEUE_NUM)
            if queues < self._count:
                raise p.BackendError(
                    f"{self._path}: the back end has {queues} queues, {self._count} are needed"
                )
        regions = [(gpa, block.size, block.fd) for gpa, block in self._ram]
        regions.append((RINGS_GPA, self._count * BYTES, self._fds.find(self.state_id, _RINGS)))
        table = p.TABLE.pack(len(regions), 0)
        table += b"".join(p.REGION.pack(gpa, size, gpa, 0) for gpa, size, _ in regions)
        connection.send(p.SET_MEM_TABLE, table, [fd for _, _, fd in regions])
        self.features, self.protocol = features, protocol

    def _on_readable(self) -> None:
        with self._lock:
            if self._connection is not None and self._connection.hung_up():
                self._hang_up("the back end hung up")

    def _hang_up(self, why: str) -> None:
        """End with this back end and tell the device."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._started = False
        self._plans = []
        for ident in (_CONNECTION, _INFLIGHT):
            fd = self._fds.find(self.state_id, ident)
            self._fds.delete(self.state_id, ident)
            if ident == _INFLIGHT and fd >= 0:
                os.close(fd)

        def close() -> None:
            self._loop.unwatch(connection.fileno())
            connection.close()

        self._loop.call_threadsafe(close)
        log.limited("warning", self.state_id, f"{why}; its device needs a reset")
        self._gone(why)

    def close(self) -> None:
        """Hang up at the program's end."""
        if self._connection is not None:
            self._loop.unwatch(self._connection.fileno())
            self._connection.close()
            self._connection = None

    def _attempt(self, work: Callable[[Connection], object]) -> bool:
        """Do ``work`` with the connection; False if there is none (any more)."""
        if self._connection is None:
            return False
        try:
            work(self._connection)
        except p.BackendError as e:
            self._hang_up(str(e))
            return False
        return True

    # ------------------------------------------------------------------- configuration space

    def read_config(self, size: int) -> bytes:
        """Return the first bytes of the device's configuration space.

        Raises:
            BackendError: the back end has none, or did not tell; it is hung up then.
        """
        found: list[bytes] = []

        def ask(connection: Connection) -> None:
            if not self.protocol & p.P_CONFIG:
                raise p.BackendError(f"{self._path}: the back end has no configuration space")
            request = p.CONFIG.pack(0, size, 0) + bytes(size)
            reply = connection.ask(p.GET_CONFIG, request, size=len(request))
            offset, length, _ = p.CONFIG.unpack_from(reply)
            if (offset, length) != (0, size):
                raise p.BackendError(
                    f"the back end told {length} bytes of configuration at {offset}, not {size}"
                )
            found.append(reply[p.CONFIG.size :])

        if not self._attempt(ask):
            raise p.BackendError(f"{self._path}: the configuration space could not be read")
        return found[0]

    def write_config(self, offset: int, data: bytes) -> None:
        """Write to the configuration space, as the guest did."""
        if self.protocol & p.P_CONFIG:
            request = p.CONFIG.pack(offset, len(data), 0) + data
            self._attempt(lambda connection: connection.send(p.SET_CONFIG, request))

    # ------------------------------------------------------------------- rings

    def begin(self, features: int, plans: Sequence[Plan]) -> None:
        """Start empty rings, offering the heads that are in flight (again); at once if the machine runs."""
        self._fresh = True
        self.go_on(features, plans)

    def go_on(self, features: int, plans: Sequence[Plan]) -> None:
        """Start rings as they were left, or as :meth:`begin` if this back end has not seen them."""
        self.driver_features = features
        self._plans = list(plans)
        known = all(self.rings[plan.index].size == plan.size for plan in self._plans)
        if self._fresh or not known:
            for plan in self._plans:
                self._prepare(plan)
        if self._running():
            self.resume()

    def _prepare(self, plan: Plan) -> None:
        ring = self.rings[plan.index]
        ring.clear(plan.size)
        self.bases[plan.index] = 0
        for head in plan.heads:
            ring.offer(head)

    def resume(self) -> None:
        """Start what was planned, unless it was started: the machine begins to run."""
        if not self._started and self._plans and self._attempt(self._start):
            self._started = True
            self._fresh = False
            for plan in self._plans:
                os.eventfd_write(self._kicks[plan.index], 1)
            os.eventfd_write(self._call, 1)  # for what was used while nobody looked

    def _start(self, connection: Connection) -> None:
        connection.send(p.SET_FEATURES, p.U64.pack(self.driver_features | p.F_PROTOCOL_FEATURES))
        if self._fresh and self.protocol & p.P_INFLIGHT_SHMFD:
            self._share_inflight(connection)
        for plan in self._plans:
            index, base = plan.index, self.bases[plan.index]
            rings = RINGS_GPA + index * BYTES
            address = p.VRING_ADDR.pack(index, 0, plan.desc, rings + BYTES // 2, rings, 0)
            connection.send(p.SET_VRING_NUM, p.VRING_STATE.pack(index, plan.size))
            connection.send(p.SET_VRING_BASE, p.VRING_STATE.pack(index, base))
            connection.send(p.SET_VRING_ADDR, address)
            connection.send(p.SET_VRING_CALL, p.U64.pack(index), [self._call])
            connection.send(p.SET_VRING_KICK, p.U64.pack(index), [self._kicks[index]])
            connection.send(p.SET_VRING_ENABLE, p.VRING_STATE.pack(index, 1))

    def _share_inflight(self, connection: Connection) -> None:
        """Let the back end keep its own list of what is in flight where it survives it."""
        old = self._fds.take(self.state_id, _INFLIGHT)
        if old >= 0:
            os.close(old)
        size = max(plan.size for plan in self._plans)
        request = p.INFLIGHT.pack(0, 0, self._count, size)
        reply, fd = connection.ask_for_fd(p.GET_INFLIGHT_FD, request, size=p.INFLIGHT.size)
        self._fds.resave(self.state_id, _INFLIGHT, fd, kind="inflight", owner=FD_OWNER)
        connection.send(p.SET_INFLIGHT_FD, reply, [fd])

    def offer(self, index: int, head: int) -> None:
        """Make a chain available; :meth:`kick` tells the back end."""
        self.rings[index].offer(head)

    def kick(self, index: int) -> None:
        """Tell the back end that there are chains."""
        if self._started:
            os.eventfd_write(self._kicks[index], 1)

    def take(self, index: int) -> tuple[int, int] | None:
        """Return (head, bytes written) of the next used chain of a ring; None if there is none."""
        if self._connection is None:
            return None
        try:
            return self.rings[index].take()
        except p.BackendError as e:
            self._hang_up(str(e))
            return None

    def fault(self, why: str) -> None:
        """Hang up on a back end that used what it was not given."""
        self._hang_up(why)

    def _on_call(self) -> None:
        with self._lock:
            _clear(self._call)
            if self._started:
                self._served()

    def drain(self) -> None:
        """Stop the rings as soon as nothing is in flight, or after 10 s; :meth:`resume` starts them again."""
        with self._lock:
            if self._started and not self._wait_until_quiet():
                log.warning(
                    f"{self.state_id}: the back end did not finish its work in 10 s; its rings are stopped with "
                    f"{self._in_flight()} chains in flight"
                )
            self._stop()

    def forget(self) -> None:
        """Stop the rings for good: the driver takes them back. A back end that does not finish is hung up."""
        if self._started:
            self._wait_until_quiet()
        if self._in_flight():  # it would write to memory that is the guest's again
            self._hang_up("the back end did not finish its work in 10 s")
        self._stop()
        self._plans = []

    def _in_flight(self) -> int:
        return sum(
            (self.rings[plan.index].offered - self.rings[plan.index].taken) & 0xFFFF
            for plan in self._plans
        )

    def _wait_until_quiet(self) -> bool:
        deadline = monotonic_ns() + QUIET_NS
        poll = select.poll()
        poll.register(self._call, select.POLLIN)
        connection = self._connection
        if connection is not None:  # its end, too, is an end of the waiting
            poll.register(connection.fileno(), select.POLLIN)
        while self._started:
            _clear(self._call)
            self._served()
            left = deadline - monotonic_ns()
            if not self._in_flight():  # also after a hang-up
                break
            if left <= 0:
                return False
            poll.poll(left // 1_000_000 + 1)
            if connection is not None and connection.hung_up():
                self._hang_up("the back end hung up")
        return True

    def _stop(self) -> None:
        if self._started:
            self._started = False
            self._attempt(self._ask_bases)

    def _ask_bases(self, connection: Connection) -> None:
        for plan in self._plans:
            size = p.VRING_STATE.size
            request = p.VRING_STATE.pack(plan.index, 0)
            reply = connection.ask(p.GET_VRING_BASE, request, size=size)
            index, base = p.VRING_STATE.unpack(reply)
            if index != plan.index:
                raise p.BackendError(f"the back end stopped ring {index}, not {plan.index}")
            self.bases[plan.index] = self.rings[plan.index].base(int(base))

    # ------------------------------------------------------------------- an update

    def save_state(self) -> FrontendState:
        """Return what was agreed on and where the rings are; they are stopped."""
        rings = [
            RingState(size=ring.size, offered=ring.offered, taken=ring.taken, base=base)
            for ring, base in zip(self.rings, self.bases, strict=True)
        ]
        return FrontendState(features=self.features, protocol=self.protocol, rings=rings)

    def load_state(self, state: FrontendState) -> None:
        """Go on with the connection that came along; without one, what was negotiated here counts."""
        if not self.inherited or len(state.rings) != self._count:
            return
        self.features, self.protocol = state.features, state.protocol
        if self._connection is None:
            return
        self._connection.acknowledges = bool(state.protocol & p.P_REPLY_ACK)
        for index, saved in enumerate(state.rings):
            self.rings[index].go_on(saved.size, saved.offered, saved.taken)
            self.bases[index] = saved.base
        self._fds.find(self.state_id, _INFLIGHT)  # claims it

    def _map_rings(self) -> mmap.mmap:
        size = self._count * BYTES
        fd = self._fds.find(self.state_id, _RINGS)
        if fd < 0:
            fd = os.memfd_create("vhost-user-rings", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SHRINK_AND_GROW)
            self._fds.resave(self.state_id, _RINGS, fd, kind="memory", owner=FD_OWNER)
        return mmap.mmap(fd, size)


def _share(ident: str, ram: Sequence[tuple[int, RamBlock]]) -> None:
    """Refuse RAM that the back end cannot see, and let nobody cut off what it can."""
    for _, block in ram:
        if block.fd < 0 or not block.share:
            raise ConfigError(
                f"chardev {ident}: vhost-user needs shared RAM, and {block.id} is private; nothing was created"
            ).hint("-object memory-backend-memfd,id=ram0,size=... -machine memory-backend=ram0")
        try:
            fcntl.fcntl(block.fd, fcntl.F_ADD_SEALS, _SHRINK_AND_GROW)
        except OSError:  # a file of the user's: it can be truncated by whoever may write it anyway
            continue


def _clear(eventfd: int) -> None:
    try:
        os.eventfd_read(eventfd)
    except BlockingIOError:
        return


def _nothing() -> None:
    """Hear of used chains when no device is attached."""


def _ignore(_why: str) -> None:
    """Hear of the end when no device is attached."""
