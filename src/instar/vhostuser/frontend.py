"""The front end of one back end: negotiation, memory, rings that start and stop, and the end of it all.

Called with the machine lock held, from the vCPU thread or the main thread; whatever the back end does wrong hangs up on
it and is told to the device (``gone``), never raised at the guest. One that merely hung up may come back, if the user
wants that: its requests wait in the rings, and those that it had begun are listed in memory that outlives it.
"""

from __future__ import annotations

import os
import select
from time import monotonic_ns

from instar import log
from instar.errors import HostError
from instar.vhostuser import protocol as p
from instar.vhostuser import ram as memory
from instar.vhostuser.connection import Connection
from instar.vhostuser.inflight import Inflight
from instar.vhostuser.link import Link
from instar.vhostuser.ring import BYTES, Plan, Ring
from instar.vhostuser.state import FrontendState, RingState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import RLock
    from collections.abc import Callable, Sequence
    from typing import ClassVar, Final

    from instar.cpr.fds import Fds
    from instar.cpr.state import State
    from instar.loop import Loop
    from instar.memory.address_space import RamRegion

QUIET_MS: Final = 10_000  # how long a stop waits for the back end to finish its work


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
        quiet_ms: How long a stop waits for the back end to finish its work.
        reconnect_ms: A back end that hangs up is looked for again after so long; 0: its device needs a reset.
        inert: In a rehearsal: the back end hears nothing, and its memory is only looked at.

    Attributes:
        inherited: There was a program before, whose state is to come.

    Raises:
        ConfigError: RAM cannot be shared.
        HostError, BackendError: nobody listens, or does not speak the protocol. Nothing is left behind.
    """

    __slots__ = (
        "_awaited", "_call", "_changed", "_count", "_fresh", "_gone", "_inert", "_inflight", "_kicks", "_link", "_lock",
        "_loop", "_map", "_news", "_plans", "_quiet_ms", "_reconnect_ms", "_running", "_served", "_shared", "_started",
        "bases", "driver_features", "id", "inherited", "rings", "state_id",
    )  # fmt: skip
    state_class: ClassVar[type[State]] = FrontendState

    def __init__(  # noqa: PLR0913 - handles, named
        self,
        ident: str,
        path: str,
        count: int,
        *,
        ram: Sequence[RamRegion],
        loop: Loop,
        lock: RLock,
        running: Callable[[], bool],
        fds: Fds,
        patience_s: float = 0.0,
        quiet_ms: int = QUIET_MS,
        reconnect_ms: int = 0,
        inert: bool = False,
    ) -> None:
        self.id = ident
        self.state_id = f"vhost-user/{ident}"
        self._count = count
        self._loop = loop
        self._lock = lock
        self._running = running
        self.driver_features = 0
        self._inert = inert
        self._quiet_ms = quiet_ms
        self._reconnect_ms = reconnect_ms
        self._served: Callable[[], object] = _nothing
        self._changed: Callable[[], object] = _nothing
        self._gone: Callable[[str], object] = _ignore
        self._plans: list[Plan] = []
        self._started = False
        self._fresh = True  # the back end has not seen our rings as they are
        self._shared = False  # the back end has the list of requests
        self._awaited = False  # it hung up and may come back
        self._news = False  # its configuration space changed and the device does not know
        self._inflight = Inflight(self.state_id, fds)
        self.bases: list[int] = [0] * count
        memory.share(ident, ram, inert=inert)
        self.inherited = fds.find(self.state_id, memory.RINGS) >= 0
        self._map = memory.map_rings(fds, self.state_id, count * BYTES, inert=inert)
        whole = memoryview(self._map)
        self.rings = [Ring(whole[n * BYTES : (n + 1) * BYTES]) for n in range(count)]
        self._call = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._kicks = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(count)]
        loop.watch(self._call, readable=self._on_call)
        self._link = Link(
            self.state_id, path, count, ram=ram, loop=loop, fds=fds,
            on_readable=self._on_readable, on_request=self._on_request,
        )  # fmt: skip
        if self.inherited:
            self._fresh = False
            self._shared = True
            self._link.adopt()  # without one, the next reset looks for a back end
        else:
            self._connect(patience_s)

    def attach(
        self,
        served: Callable[[], object],
        gone: Callable[[str], object],
        changed: Callable[[], object],
    ) -> None:
        """Say whom to tell.

        Args:
            served: The back end used chains.
            gone: There is no back end any more, and why.
            changed: The configuration space is another one.
        """
        self._served, self._gone, self._changed = served, gone, changed

    @property
    def features(self) -> int:
        """What the back end offers, or the last one did."""
        return self._link.features

    @property
    def connected(self) -> bool:
        """Whether there is a back end."""
        return self._link.connection is not None

    @property
    def lives(self) -> bool:
        """Whether requests will be served: there is a back end, or one that may come back."""
        return self._link.connection is not None or self._awaited

    # ------------------------------------------------------------------- the connection

    def reconnect(self) -> None:
        """Connect again if the back end is gone; it stays gone if nobody listens."""
        if self._link.connection is None and not self._inert:
            try:
                self._connect(0.0)
            except (HostError, p.BackendError) as e:
                log.limited("warning", self.state_id, str(e))

    def _connect(self, patience_s: float) -> None:
        self._link.connect(patience_s)
        self._fresh = not self._awaited
        self._shared = False

    def _on_request(self) -> None:
        with self._lock:
            if self._link.requests is None:
                return
            try:
                self._news |= self._link.requests.read()
            except p.LostError:  # the other connection tells more
                self._link.close_requests()
            except p.BackendError as e:
                self._hang_up(str(e))
            self._tell_news()

    def _tell_news(self) -> None:
        """Tell the device of a change, unless the machine stands still: then it is told when it runs."""
        if self._news and self._link.connection is not None and self._running():
            self._news = False
            self._changed()

    # ------------------------------------------------------------------- the end of a back end

    def _on_readable(self) -> None:
        with self._lock:
            self._attempt(Connection.check_silent)

    def _hang_up(self, why: str, *, lost: bool = False) -> None:
        """End with this back end; tell the device, unless the back end was ``lost`` and may come back."""
        if self._link.connection is None:
            return
        self._started = False
        self._link.drop()
        if lost and self._reconnect_ms and self._plans and self._inflight.kept:
            log.limited("warning", self.state_id, f"{why}; its requests wait until it is back")
            self._wait_for_it()
            return
        self._plans = []
        self._inflight.drop()
        log.limited("warning", self.state_id, f"{why}; its device needs a reset")
        self._gone(why)

    def _wait_for_it(self) -> None:
        self._awaited = True
        delay_ns = self._reconnect_ms * 1_000_000
        loop = self._loop
        loop.call_threadsafe(lambda: loop.call_later(delay_ns, self._look_again))

    def _look_again(self) -> None:
        with self._lock:
            if not self._awaited or self._link.connection is not None:
                return
            try:
                self._connect(0.0)
                self._awaited = False
                self._go_on_with_another()
            except (HostError, p.LostError):
                self._wait_for_it()
            except p.BackendError as e:
                self._awaited = False
                self._plans = []
                self._inflight.drop()
                self._hang_up(str(e))
                self._gone(str(e))

    def _go_on_with_another(self) -> None:
        """Go on with the rings and the list of requests where the back end before left them."""
        missing = self.driver_features & ~self._link.features
        if missing or not self._link.protocol & p.P_INFLIGHT_SHMFD:
            raise p.BackendError(f"{self._link.path}: the back end came back with other features")
        for plan in self._plans:
            self.bases[plan.index] = self.rings[plan.index].used()
        log.limited("warning", self.state_id, "the back end is back")
        self._news = True  # its configuration space may be another one
        if self._running():
            self.resume()

    def close(self) -> None:
        """Hang up at the program's end."""
        self._link.close()

    def _attempt(self, work: Callable[[Connection], object]) -> bool:
        """Do ``work`` with the connection; False if there is none (any more)."""
        if self._link.connection is None:
            return False
        try:
            work(self._link.connection)
        except p.BackendError as e:
            self._hang_up(str(e), lost=isinstance(e, p.LostError))
            return False
        return True

    def read_config(self, size: int) -> bytes:
        """Return the first bytes of the device's configuration space.

        Raises:
            BackendError: the back end has none, or did not tell; it is hung up then.
        """
        found: list[bytes] = []

        def ask(connection: Connection) -> None:
            if not self._link.protocol & p.P_CONFIG:
                raise p.BackendError(f"{self._link.path}: the back end has no configuration space")
            request = p.CONFIG.pack(0, size, 0) + bytes(size)
            reply = connection.ask(p.GET_CONFIG, request, size=len(request))
            offset, length, _ = p.CONFIG.unpack_from(reply)
            if (offset, length) != (0, size):
                raise p.BackendError(
                    f"the back end told {length} bytes of configuration at {offset}, not {size}"
                )
            found.append(reply[p.CONFIG.size :])

        if not self._attempt(ask):
            raise p.BackendError(f"{self._link.path}: the configuration space could not be read")
        return found[0]

    def write_config(self, offset: int, data: bytes) -> None:
        """Write to the configuration space, as the guest did."""
        if self._link.protocol & p.P_CONFIG:
            request = p.CONFIG.pack(offset, len(data), 0) + data
            self._attempt(lambda connection: connection.send(p.SET_CONFIG, request))

    def begin(self, features: int, plans: Sequence[Plan]) -> None:
        """Start empty rings, offering the heads that are in flight (again); at once if the machine runs."""
        self._fresh = True
        self._shared = False
        self._inflight.drop()
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
        if self._started:
            os.eventfd_write(self._call, 1)  # for what was used while nobody looked
        self._tell_news()

    def _start(self, connection: Connection) -> None:
        connection.send(p.SET_FEATURES, p.U64.pack(self.driver_features | p.F_PROTOCOL_FEATURES))
        if not self._shared and self._link.protocol & p.P_INFLIGHT_SHMFD:
            size = max(plan.size for plan in self._plans)
            self._inflight.share(connection, self._count, size)
        self._shared = True
        for plan in self._plans:
            index, base = plan.index, self.bases[plan.index]
            rings = memory.RINGS_GPA + index * BYTES
            address = p.VRING_ADDR.pack(index, 0, plan.desc, rings + BYTES // 2, rings, 0)
            connection.send(p.SET_VRING_NUM, p.VRING_STATE.pack(index, plan.size))
            connection.send(p.SET_VRING_BASE, p.VRING_STATE.pack(index, base))
            connection.send(p.SET_VRING_ADDR, address)
            connection.send(p.SET_VRING_CALL, p.U64.pack(index), [self._call])
            connection.send(p.SET_VRING_KICK, p.U64.pack(index), [self._kicks[index]])
            connection.send(p.SET_VRING_ENABLE, p.VRING_STATE.pack(index, 1))

    def offer(self, index: int, head: int) -> None:
        """Make a chain available; :meth:`kick` tells the back end."""
        self.rings[index].offer(head)

    def kick(self, index: int) -> None:
        """Tell the back end that there are chains."""
        if self._started:
            os.eventfd_write(self._kicks[index], 1)

    def take(self, index: int) -> tuple[int, int] | None:
        """Return (head, bytes written) of the next used chain of a ring; None if there is none."""
        if self._link.connection is None:
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
        """Stop the rings as soon as nothing is in flight; :meth:`resume` starts them again.

        With a back end that takes too long they go on: :meth:`save_state` will refuse.
        """
        with self._lock:
            if not self._started or self._wait_until_quiet():
                self._stop()
            else:
                log.limited("warning", self.state_id, self._unfinished())

    def _unfinished(self) -> str:
        count = self._in_flight()
        return f"the back end did not finish its work in {self._quiet_ms} ms; {count} requests are in flight"

    def forget(self) -> None:
        """Stop the rings for good: the driver takes them back. A back end that does not finish is hung up."""
        self._awaited = False
        if self._started:
            self._wait_until_quiet()
        if self._in_flight():  # it would write to memory that is the guest's again
            self._hang_up(self._unfinished())
        self._stop()
        self._plans = []
        self._inflight.drop()

    def _in_flight(self) -> int:
        return sum(
            (self.rings[plan.index].offered - self.rings[plan.index].taken) & 0xFFFF
            for plan in self._plans
        )

    def _wait_until_quiet(self) -> bool:
        deadline = monotonic_ns() + self._quiet_ms * 1_000_000
        poll = select.poll()
        poll.register(self._call, select.POLLIN)
        connection = self._link.connection
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
            self._attempt(Connection.check_silent)
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
        """Return what was agreed on and where the rings are; they are stopped.

        Raises:
            HostError: the back end works on requests, so they could not be stopped; nothing changed.
        """
        if self._started:
            raise HostError(f"{self.state_id}: {self._unfinished()}, so the rings cannot be moved")
        return self.peek_state()

    def peek_state(self) -> FrontendState:
        """Return what :meth:`save_state` would, also while the rings run; then it is good for a rehearsal only."""
        rings = [RingState() for _ in self.rings]
        if self.lives:  # nobody goes on with the rings of a back end that is gone
            rings = [
                RingState(size=ring.size, offered=ring.offered, taken=ring.taken, base=base)
                for ring, base in zip(self.rings, self.bases, strict=True)
            ]
        return FrontendState(
            features=self._link.features,
            protocol=self._link.protocol,
            rings=rings,
            inflight=self._inflight.layout,
            heard=self._link.requests.heard if self._link.requests is not None else b"",
            news=self._news,
        )

    def load_state(self, state: FrontendState) -> None:
        """Go on with the connection that came along; without one, what was negotiated here counts."""
        if not self.inherited or len(state.rings) != self._count:
            return
        self._link.features, self._link.protocol = state.features, state.protocol
        self._news = state.news
        self._inflight.layout = state.inflight
        kept = self._inflight.kept  # this claims it, too
        if self._link.requests is not None:
            self._link.requests.heard = state.heard
        if self._link.connection is not None:
            self._link.connection.acknowledges = bool(state.protocol & p.P_REPLY_ACK)
        elif kept and self._reconnect_ms:
            self._wait_for_it()
        else:
            return
        for index, saved in enumerate(state.rings):
            self.rings[index].go_on(saved.size, saved.offered, saved.taken)
            self.bases[index] = saved.base


def _clear(eventfd: int) -> None:
    try:
        os.eventfd_read(eventfd)
    except BlockingIOError:
        return


def _nothing() -> None:
    """Hear of used chains when no device is attached."""


def _ignore(_why: str) -> None:
    """Hear of the end when no device is attached."""
