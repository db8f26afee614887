"""virtio-blk: a disk over a block back end.

Source: virtio 1.2, 5.2 (device 2).
"""

from __future__ import annotations

import errno
from struct import Struct

from instar.block.policy import ErrorPolicy
from instar.block.request import BlockRequest
from instar.devices.virtio_blk.state import BlkState
from instar.errors import QueueError
from instar.virtio.device import VirtioDevice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar, Final, Protocol

    from instar.block.policy import Action
    from instar.block.request import Op
    from instar.cpr.state import State
    from instar.virtio.queue import Chain, Queue

    Done = Callable[[int], None]
    Begin = Callable[["VirtioBlk", Chain, int, Done], BlockRequest | int]
    OnError = Callable[[Op, int, Action], object]

    class BlockBackend(Protocol):
        """The host side of a disk (``instar.block.RawBlock``)."""

        @property
        def size(self) -> int:
            """Return the size in bytes, a multiple of 512."""
            ...

        @property
        def read_only(self) -> bool:
            """Return whether writes fail."""
            ...

        def submit(self, request: BlockRequest, /) -> None:
            """Start a request."""
            ...

        def finish(self) -> None:
            """Return when all requests that were begun are answered."""
            ...

        def forget(self) -> None:
            """Forget the requests that were not begun."""
            ...


SECTOR: Final = 512
F_SEG_MAX: Final = 1 << 2
F_RO: Final = 1 << 5
F_BLK_SIZE: Final = 1 << 6
F_FLUSH: Final = 1 << 9
F_CONFIG_WCE: Final = 1 << 11
F_DISCARD: Final = 1 << 13
F_WRITE_ZEROES: Final = 1 << 14

T_IN, T_OUT, T_FLUSH, T_GET_ID, T_DISCARD, T_WRITE_ZEROES = 0, 1, 4, 8, 11, 13
S_OK, S_IOERR, S_UNSUPP = 0, 1, 2

SEG_MAX: Final = 254  # data segments; with header and status one queue full
MAX_RANGE: Final = (
    1 << 21
)  # sectors (1 GiB) of one discard or write zeroes: bounds a worker's time
SERIAL_BYTES: Final = 20
_UNMAP: Final = 1
_WRITEBACK_OFFSET: Final = 32
_HEADER: Final = Struct("<IIQ")  # type, reserved, sector
_RANGE: Final = Struct("<QII")  # sector, sectors, flags
# capacity, size_max, seg_max, geometry, blk_size, topology, writeback, num_queues, then three words of
# discard, three of write zeroes (the last is a byte).
_CONFIG: Final = Struct("<QII4xI8xBxHIIIIIB3x")


class VirtioBlk(VirtioDevice):
    """Serve a guest's disk requests, many at a time.

    Args:
        block: Where the bytes are.
        serial: What the guest shows as serial number; up to 20 bytes of it count.
        state_id: Unique name of its state.
        policy: What follows from failed requests.
        on_error: Told of each failed request: what it was, its errno, what follows. After "stop" it stops the machine;
            :meth:`retry` follows when the machine runs again.
    """

    __slots__ = ("_on_error", "_policy", "_stalled", "block", "serial", "state")
    state_class: ClassVar[type[State]] = BlkState
    device_id = 2
    queues: ClassVar[tuple[str, ...]] = ("requests",)

    def __init__(
        self,
        block: BlockBackend,
        *,
        serial: str = "",
        state_id: str,
        policy: ErrorPolicy | None = None,
        on_error: OnError | None = None,
    ) -> None:
        super().__init__(state_id)
        self.block = block
        self._policy = policy or ErrorPolicy(write="report")
        self._on_error = on_error
        self._stalled: list[_Pending] = []  # in flight for the guest, to be tried again
        self.serial = serial.encode()[:SERIAL_BYTES].ljust(SERIAL_BYTES, b"\0")
        self.state = BlkState(capacity=block.size // SECTOR)

    # ------------------------------------------------------------------- life

    def stop(self) -> None:
        """Return when the host has answered what it began; what waits for it, repaired or not so busy, is forgotten."""
        self.block.finish()
        self.block.forget()
        self._stalled.clear()

    def reset(self) -> None:
        """Bring the reset state; the guest learns the size the disk has now."""
        self.state = BlkState(capacity=self.block.size // SECTOR)

    def resume(self, queue: Queue) -> None:
        """Remember for :meth:`retry` what was in flight when the state was saved: all requests can be repeated."""
        self._stalled += [_Pending(self, queue, chain) for chain in queue.in_flight()]

    @property
    def stalled(self) -> bool:
        """Whether requests wait for :meth:`retry`."""
        return bool(self._stalled)

    def retry(self) -> None:
        """Try what failed, or was under way before an update, again: the machine is about to run; lock held."""
        stalled, self._stalled = self._stalled, []
        for pending in stalled:
            self.port.run(pending.start, pending.queue)

    def resized(self) -> None:
        """Show the guest the size that the disk has now; lock held."""
        self.state.capacity = self.block.size // SECTOR
        self.port.config_changed()

    def save_state(self) -> BlkState:
        """Return the live state."""
        return self.state

    def load_state(self, state: BlkState) -> None:
        """Go on from ``state``; sectors that the disk lost meanwhile give I/O errors."""
        self.state = state

    # ------------------------------------------------------------------- configuration

    def offered(self) -> int:
        """Return the features; writing ones only if the disk is writable."""
        always = F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_CONFIG_WCE
        return always | (F_RO if self.block.read_only else F_DISCARD | F_WRITE_ZEROES)

    def config(self) -> bytes:
        """Return the configuration space (5.2.4)."""
        state = self.state
        return _CONFIG.pack(
            state.capacity,
            0,  # size_max: not offered
            SEG_MAX,
            SECTOR,
            state.writeback,
            1,  # num_queues
            MAX_RANGE,
            1,  # discard segments in one request
            1,  # alignment, sectors
            MAX_RANGE,
            1,  # write zeroes segments in one request
            1,  # write zeroes may unmap
        )

    def write_config(self, offset: int, data: bytes) -> None:
        """Take the cache mode; the rest is read-only."""
        if offset == _WRITEBACK_OFFSET and len(data) == 1 and self.port.features & F_CONFIG_WCE:
            self.state.writeback = bool(data[0] & 1)

    # ------------------------------------------------------------------- requests

    def on_requests(self, queue: Queue) -> None:
        """Start every request in the ring."""
        for chain in queue.peek():
            queue.take(chain)
            _Pending(self, queue, chain).start(queue)

    def translate(self, chain: Chain, done: Done) -> BlockRequest | int:
        """Return what the host has to do for a request, or the status of one that is answered already.

        Raises:
            QueueError: there is no header or no room for the status: nothing can be answered.
        """
        if chain.room < 1:
            raise QueueError(f"request {chain.head} has no room for its status")
        kind, _, sector = _HEADER.unpack(chain.read(0, _HEADER.size))
        begin = self._BEGINNERS.get(kind)
        return S_UNSUPP if begin is None else begin(self, chain, sector, done)

    def failed(self, pending: _Pending, op: Op, error: int) -> Action:
        """Decide what follows from ``error``, tell, and keep the request if it is to be tried again."""
        action = self._policy.action(op, error)
        if action == "stop":
            self._stalled.append(pending)
        if self._on_error is not None:
            self._on_error(op, error, action)
        return action

    # Each of these returns the back end's request, or the status of one that is answered already.

    def _begin_in(self, chain: Chain, sector: int, done: Done) -> BlockRequest | int:
        length = chain.room - 1
        if not self._inside(sector, length):
            return S_IOERR
        if not length:
            return S_OK
        return BlockRequest("read", sector * SECTOR, length, chain.targets(0, length), done)

    def _begin_out(self, chain: Chain, sector: int, done: Done) -> BlockRequest | int:
        length = chain.size - _HEADER.size
        if self.block.read_only or not self._inside(sector, length):
            return S_IOERR
        if not length:
            return S_OK
        data = chain.sources(_HEADER.size, length)
        durable = self._write_through()
        return BlockRequest("write", sector * SECTOR, length, data, done, durable=durable)

    def _begin_flush(self, _chain: Chain, _sector: int, done: Done) -> BlockRequest | int:
        return BlockRequest("flush", 0, 0, [], done)

    def _begin_get_id(self, chain: Chain, _sector: int, _done: Done) -> BlockRequest | int:
        chain.write(self.serial[: chain.room - 1])
        return S_OK

    def _begin_discard(self, chain: Chain, _sector: int, done: Done) -> BlockRequest | int:
        return self._begin_range("discard", chain, done, allowed=0)

    def _begin_write_zeroes(self, chain: Chain, _sector: int, done: Done) -> BlockRequest | int:
        return self._begin_range("write-zeroes", chain, done, allowed=_UNMAP)

    def _begin_range(
        self, op: Op, chain: Chain, done: Done, *, allowed: int
    ) -> BlockRequest | int:
        if self.block.read_only or chain.size != _HEADER.size + _RANGE.size:
            return S_IOERR
        sector, count, flags = _RANGE.unpack(chain.read(_HEADER.size, _RANGE.size))
        if flags & ~allowed:
            return S_UNSUPP  # 5.2.6.2
        if count > MAX_RANGE or not self._inside(sector, count * SECTOR):
            return S_IOERR
        if not count:
            return S_OK
        durable = self._write_through()
        start, length, unmap = sector * SECTOR, count * SECTOR, bool(flags)
        return BlockRequest(op, start, length, [], done, durable=durable, unmap=unmap)

    def _inside(self, sector: int, length: int) -> bool:
        return length % SECTOR == 0 and sector * SECTOR + length <= self.state.capacity * SECTOR

    def _write_through(self) -> bool:
        """Return whether a write has to reach the disk before it is answered (5.2.5.2, 5.2.6.2)."""
        features = self.port.features
        chosen = bool(features & F_CONFIG_WCE) and not self.state.writeback
        return chosen or not features & F_FLUSH

    _BEGINNERS: ClassVar[dict[int, Begin]] = {
        T_IN: _begin_in,
        T_OUT: _begin_out,
        T_FLUSH: _begin_flush,
        T_GET_ID: _begin_get_id,
        T_DISCARD: _begin_discard,
        T_WRITE_ZEROES: _begin_write_zeroes,
    }


class _Pending:
    """A request that the host works on, or will again."""

    __slots__ = ("chain", "device", "error", "op", "queue")

    def __init__(self, device: VirtioBlk, queue: Queue, chain: Chain) -> None:
        self.device = device
        self.queue = queue
        self.chain = chain
        self.error = 0
        self.op: Op = "read"

    def start(self, queue: Queue) -> None:
        """Have the host work on it, or answer at once."""
        started = self.device.translate(self.chain, self.done)
        if isinstance(started, int):
            _answer(queue, self.chain, started)
        else:
            self.op = started.op
            self.device.block.submit(started)

    def done(self, error: int) -> None:
        """Take the host's answer: 0 or an errno."""
        self.error = error
        self.device.port.run(self._finish, self.queue)

    def _finish(self, queue: Queue) -> None:
        chain, error = self.chain, self.error
        if chain.room > 1:  # a failed read may have written a part
            chain.filled(0, chain.room - 1)
        if error == errno.EOPNOTSUPP:
            _answer(queue, chain, S_UNSUPP)
            return
        action = self.device.failed(self, self.op, error) if error else "ignore"
        if action != "stop":
            _answer(queue, chain, S_IOERR if action == "report" else S_OK)


def _answer(queue: Queue, chain: Chain, status: int) -> None:
    """Write the status, the last byte of the room, and give the chain back."""
    chain.write(bytes((status,)), chain.room - 1)
    # Used bytes count from the start, so a status behind data that was not written is not among them.
    complete = status == S_OK or chain.room == 1
    queue.complete(chain, chain.room if complete else 0)
