"""Host handles that do nothing by themselves: the test decides what comes and when."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

from instar.memory import AddressSpace, RamBlock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from instar.block.request import BlockRequest
    from instar.cpr.fds import Entry

RAM_BASE = 0x8000_0000


def make_space(size: int = 1 << 20) -> AddressSpace:
    """Return an address space with ``size`` bytes of anonymous RAM at RAM_BASE."""
    space = AddressSpace()
    block = RamBlock("ram", mmap.mmap(-1, size), fd=-1, share=False, adopted=False)
    space.add_ram(RAM_BASE, block)
    return space


class FakeIrq:
    """A line that remembers its level and how often it rose."""

    def __init__(self) -> None:
        self.level = False
        self.rises = 0

    def set(self, level: bool) -> None:  # noqa: FBT001 - the contract of an interrupt line
        """Take the level."""
        self.rises += level and not self.level
        self.level = level


class FakeTimer:
    """A call that waits for :meth:`FakeClock.advance`."""

    def __init__(self, at_ns: int, callback: Callable[[], object]) -> None:
        self.at_ns = at_ns
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """Forget it."""
        self.callback = None


class FakeClock:
    """A clock and its timers; time passes by :meth:`advance` alone."""

    def __init__(self, ns: int = 1_700_000_000_000_000_000) -> None:
        self.ns = ns
        self.timers: list[FakeTimer] = []

    def now_ns(self) -> int:
        """Return the time."""
        return self.ns

    def rtc_ns(self) -> int:
        """Return the same time."""
        return self.ns

    def call_later(self, delay_ns: int, callback: Callable[[], object]) -> FakeTimer:
        """Remember the call."""
        timer = FakeTimer(self.ns + delay_ns, callback)
        self.timers.append(timer)
        return timer

    def advance(self, ns: int) -> None:
        """Let ``ns`` pass, calling what is due in order."""
        end = self.ns + ns
        while due := [t for t in self.timers if t.callback is not None and t.at_ns <= end]:
            timer = min(due, key=lambda t: t.at_ns)
            self.timers.remove(timer)
            self.ns = max(self.ns, timer.at_ns)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
        self.ns = end


class FakeChardev:
    """A chardev whose peer takes and gives what the test says."""

    def __init__(self) -> None:
        self.sent = b""
        self.kept = b""
        self.stuck = False
        self.input = b""
        self.receive: Callable[[bytes], None] = lambda _data: None
        self.can_receive: Callable[[], int] = lambda: 0
        self.event: Callable[[str], None] = lambda _name: None

    def attach(
        self,
        *,
        receive: Callable[[bytes], None],
        can_receive: Callable[[], int],
        event: Callable[[str], None],
    ) -> None:
        """Remember the front end."""
        self.receive, self.can_receive, self.event = receive, can_receive, event

    def write(self, data: bytes) -> None:
        """Send, or keep while stuck."""
        if self.stuck:
            self.kept += data
        else:
            self.sent += data

    def pending(self) -> int:
        """Return how much is kept."""
        return len(self.kept)

    def unstick(self) -> None:
        """Send what was kept and say so."""
        self.stuck = False
        self.sent, self.kept = self.sent + self.kept, b""
        self.event("drained")

    def type(self, data: bytes) -> None:
        """Let the peer send ``data``."""
        self.input += data
        self.accept_input()

    def accept_input(self) -> None:
        """Give what there is room for."""
        room = self.can_receive()
        if room > 0 and self.input:
            data, self.input = self.input[:room], self.input[room:]
            self.receive(data)


class FakeFds:
    """A table of named descriptors."""

    def __init__(self) -> None:
        self.table: dict[tuple[str, int], int] = {}

    def find(self, name: str, ident: int) -> int:
        """Return the descriptor, or -1."""
        return self.table.get((name, ident), -1)

    def save(self, name: str, ident: int, fd: int, *, kind: str, owner: str) -> None:
        """Name a descriptor."""
        self.table[name, ident] = fd

    def delete(self, name: str, ident: int) -> None:
        """Forget a name."""
        del self.table[name, ident]

    def walk(self, _owner: str = "") -> Iterator[Entry]:
        """Yield nothing: no sets are in it."""
        return iter(())


class FakeBlock:
    """A disk in memory; with ``hold`` requests wait for :meth:`finish` or :meth:`finish_one`."""

    def __init__(self, size: int = 64 * 512, *, read_only: bool = False) -> None:
        self.data = bytearray(size)
        self.read_only = read_only
        self.hold = False
        self.error = 0  # errno of all requests
        self.waiting: list[BlockRequest] = []
        self.log: list[tuple[str, int, int, bool]] = []

    @property
    def size(self) -> int:
        """Return the size in bytes."""
        return len(self.data)

    def submit(self, request: BlockRequest) -> None:
        """Do the request, or hold it."""
        self.log.append((request.op, request.offset, request.length, request.durable))
        if self.hold:
            self.waiting.append(request)
        else:
            self._do(request)

    def finish_one(self, index: int = 0) -> None:
        """Do one of the requests that wait."""
        self._do(self.waiting.pop(index))

    def finish(self) -> None:
        """Do all requests that wait."""
        while self.waiting:
            self.finish_one()

    def forget(self) -> None:
        """Do nothing: every request that waits was begun."""

    def _do(self, request: BlockRequest) -> None:
        offset = request.offset
        if request.op in {"discard", "write-zeroes"} and not self.error:
            self.data[offset : offset + request.length] = bytes(request.length)
        for view in request.buffers:
            if self.error:
                break
            if request.op == "read":
                view[:] = self.data[offset : offset + len(view)]
            else:
                self.data[offset : offset + len(view)] = view
            offset += len(view)
        request.done(self.error)


class FakeEntropy:
    """An entropy source with ``supply`` bytes left; they count up from 0."""

    def __init__(self, supply: int = 1 << 30) -> None:
        self.supply = supply
        self.given = 0
        self.waiter: Callable[[], object] | None = None

    def read(self, count: int) -> bytes:
        """Return the next bytes of the sequence."""
        count = min(count, self.supply)
        data = bytes((self.given + n) & 0xFF for n in range(count))
        self.given += count
        self.supply -= count
        return data

    def when_ready(self, callback: Callable[[], object]) -> None:
        """Remember who waits."""
        self.waiter = callback

    def refill(self, count: int) -> None:
        """Have ``count`` bytes more and tell who waits."""
        self.supply += count
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter()
