"""Split virtqueues and their chains as a device sees them; everything in them was written by a guest nobody trusts.

Compiled by Cython to ``instar.virtio.queue``; ``queue.pyi`` says what it is for others. A chain leaves the ring only
when it is answered (``Queue.complete``) or listed as in flight (``Queue.take``), so stopping between any two lines
loses nothing. Guest memory is read once and checked afterwards: the guest may run meanwhile.

Source: virtio 1.2, 2.7.
"""

import cython
from cython import cast, sizeof
from cython.cimports.cpython.buffer import (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython.cimports.libc.stdlib import free, realloc
from cython.cimports.libc.string import memcpy
from cython.cimports.ring_types import *

from instar.errors import GuestMemoryError, InternalBugError, QueueError

# Overlapping descriptors can claim more room than there is RAM. Linux splits far below this.
MAX_BYTES = 256 << 20
_MAX_BYTES = cython.declare(u64, 256 << 20)
_NEXT = cython.declare(u16, 1)
_WRITE = cython.declare(u16, 2)
_INDIRECT = cython.declare(u16, 4)
_NO_INTERRUPT = cython.declare(u16, 1)
_INDIRECT_DESC = cython.declare(u64, 1 << 28)
_EVENT_IDX = cython.declare(u64, 1 << 29)
_REGIONS = cython.declare(cython.int, 4)


def barrier():
    full_fence()


# ------------------------------------------------------------------- guest memory


@cython.cclass
class Ram:
    """The blocks of guest RAM: where they are here, and who is told of writes."""

    memory: object
    views: list
    count: cython.int
    base: u64[4]
    size: u64[4]
    held: Py_buffer[4]

    def __init__(self, memory):
        self.memory = memory
        self.views = []
        for base, view in memory.regions():
            if self.count == _REGIONS:
                raise InternalBugError(f"rings look into {_REGIONS} blocks of RAM, there are more")
            PyObject_GetBuffer(view, cython.address(self.held[self.count]), PyBUF_WRITABLE)
            self.base[self.count] = base
            self.size[self.count] = cast(u64, self.held[self.count].len)
            self.views.append(view)
            self.count += 1

    def __dealloc__(self):
        i: cython.int
        for i in range(self.count):
            PyBuffer_Release(cython.address(self.held[i]))

    @cython.cfunc
    def find(self, gpa: u64, length: u64) -> cython.int:
        """Return which block holds all of these bytes; GuestMemoryError if none does."""
        i: cython.int
        for i in range(self.count):
            if gpa >= self.base[i] and length <= self.size[i]:
                if gpa - self.base[i] <= self.size[i] - length:
                    return i
        raise GuestMemoryError(gpa, length)

    @cython.cfunc
    def host(self, gpa: u64, length: u64) -> P_u8:
        """Return where these bytes are; GuestMemoryError if not all of them are in RAM."""
        i: cython.int = self.find(gpa, length)
        return cast(P_u8, self.held[i].buf) + (gpa - self.base[i])

    @cython.cfunc
    def part(self, gpa: u64, offset: u64, length: u64) -> P_u8:
        """Return where ``length`` bytes at ``offset`` behind ``gpa`` are; the sum does not wrap around."""
        if gpa + offset < gpa:
            raise GuestMemoryError(gpa, offset + length)
        return self.host(gpa + offset, length)

    @cython.cfunc
    def word(self, gpa: u64, offset: u64) -> P_u8:
        """Return where a word of 2 bytes is, which is aligned."""
        if (gpa + offset) & 1:
            raise GuestMemoryError(gpa + offset, 2, "not aligned to 2 bytes")
        return self.part(gpa, offset, 2)

    @cython.cfunc
    def wrote(self, gpa: u64, length: u64) -> cython.int:
        """Tell the CPU that a device changed these bytes."""
        direct = self.memory.notice
        if direct is not None:
            call_notice(direct, gpa, length)
        elif length:
            self.memory.written(gpa, length)
        return 0


# ------------------------------------------------------------------- chains


@cython.cclass
class Chain:
    """One request of the guest; see ``queue.pyi``."""

    ram: Ram
    head = cython.declare(u32, visibility="readonly")
    size = cython.declare(u64, visibility="readonly")
    room = cython.declare(u64, visibility="readonly")
    answered = cython.declare(cython.bint, visibility="public")
    segments: pSegment  # the readable ones, then the writable ones
    count: cython.int
    inputs: cython.int  # how many are readable
    capacity: cython.int

    def __dealloc__(self):
        free(self.segments)

    @cython.cfunc
    def append(self, gpa: u64, length: u64, writes: cython.bint) -> cython.int:
        """Append what one descriptor says, or raise and append nothing."""
        region: cython.int
        last: pSegment
        if length == 0:
            raise QueueError(f"descriptor of chain {self.head} is empty")
        if self.size + self.room + length > _MAX_BYTES:
            raise QueueError(
                f"chain {self.head} has {self.size + self.room + length} bytes, limit {_MAX_BYTES}"
            )
        region = self.ram.find(gpa, length)
        if not writes and self.count > self.inputs:
            raise QueueError(f"chain {self.head} has a readable descriptor after a writable one")
        first: cython.int = self.inputs if writes else 0
        last = self.segments + (self.count - 1)
        if self.count > first and last.gpa + last.length == gpa and last.region == region:
            last.length += length  # long transfers are often in one piece: fewer parts, fewer views
        else:
            self.grow()
            last = self.segments + self.count
            last.gpa = gpa
            last.length = length
            last.region = region
            last.host = cast(P_u8, self.ram.held[region].buf) + (gpa - self.ram.base[region])
            self.count += 1
        if writes:
            self.room += length
        else:
            self.size += length
            self.inputs = self.count
        return 0

    @cython.cfunc
    def grow(self) -> cython.int:
        more: cython.int
        bigger: cython.p_void
        if self.count < self.capacity:
            return 0
        more = 4 * self.capacity if self.capacity else 4
        bigger = realloc(self.segments, cast(cython.size_t, more) * sizeof(Segment))
        if bigger == cython.NULL:
            raise MemoryError(f"no memory for {more} segments of a chain")
        self.segments = cast(pSegment, bigger)
        self.capacity = more
        return 0

    @cython.cfunc
    def cut(self, first: cython.int, last: cython.int, offset: u64, length: u64) -> list:
        """Return (guest address, view) of ``length`` bytes from ``offset`` of the segments first to last."""
        found: list = []
        i: cython.int
        start: u64
        take: u64
        for i in range(first, last):
            if length == 0:
                break
            s: pSegment = self.segments + i
            if offset >= s.length:
                offset -= s.length
                continue
            take = s.length - offset
            if take > length:
                take = length
            start = s.gpa - self.ram.base[s.region] + offset
            found.append((s.gpa + offset, self.ram.views[s.region][start : start + take]))
            length -= take
            offset = 0
        return found

    @cython.cfunc
    def copy(self, data: P_u8, offset: u64, length: u64, out: cython.bint) -> cython.int:
        """Copy to the room (``out``; NULL: it was written already) or from what the guest wrote, as far as that goes."""
        i: cython.int
        take: u64
        for i in range(self.inputs if out else 0, self.count):
            if length == 0:
                break
            s: pSegment = self.segments + i
            if offset >= s.length:
                offset -= s.length
                continue
            take = s.length - offset
            if take > length:
                take = length
            if not out:
                memcpy(data, s.host + offset, take)
            elif data != cython.NULL:
                memcpy(s.host + offset, data, take)
            if out:
                self.ram.wrote(s.gpa + offset, take)
            if data != cython.NULL:
                data += take
            length -= take
            offset = 0
        return 0

    @property
    def readable(self):
        return self.cut(0, self.inputs, 0, self.size)

    @property
    def writable(self):
        return self.cut(self.inputs, self.count, 0, self.room)

    def read(self, offset: i64, length: i64):
        self.check_size(offset, length)
        data: bytes = PyBytes_FromStringAndSize(cython.NULL, length)
        self.copy(cast(P_u8, PyBytes_AS_STRING(data)), offset, length, False)
        return data

    def sources(self, offset: i64, length: i64):
        self.check_size(offset, length)
        return [view for _, view in self.cut(0, self.inputs, offset, length)]

    def targets(self, offset: i64, length: i64):
        self.check_room(offset, length)
        return [view for _, view in self.cut(self.inputs, self.count, offset, length)]

    def filled(self, offset: i64, length: i64):
        self.copy(cython.NULL, offset, length, True)

    def write(self, data, offset: i64 = 0):
        raw: Py_buffer
        PyObject_GetBuffer(data, cython.address(raw), PyBUF_SIMPLE)
        try:
            self.check_room(offset, raw.len)
            self.copy(cast(P_u8, raw.buf), offset, raw.len, True)
        finally:
            PyBuffer_Release(cython.address(raw))

    @cython.cfunc
    def check_size(self, offset: i64, length: i64) -> cython.int:
        if offset < 0 or length < 0 or offset + length > cast(i64, self.size):
            raise QueueError(
                f"chain {self.head} has {self.size} bytes to read, {offset + length} are needed"
            )
        return 0

    @cython.cfunc
    def check_room(self, offset: i64, length: i64) -> cython.int:
        """Refuse what the device should not have asked: it has to look at ``room``."""
        if offset < 0 or length < 0 or offset + length > cast(i64, self.room):
            raise InternalBugError(
                f"write of {length} bytes at {offset} into {self.room} bytes of a chain"
            )
        return 0


# ------------------------------------------------------------------- the ring


@cython.cclass
class Peek:
    """What ``Queue.peek`` returns: at most a ring full of chains; one neither taken nor completed ends it."""

    queue: Queue
    left: u64  # a guest that adds for ever does not hold the lock for ever
    position: cython.int  # of the chain given last, -1: none was

    def __iter__(self):
        return self

    def __next__(self):
        queue: Queue = self.queue
        state = queue.state
        at: u16 = state.next_avail
        if self.position == at or self.left == 0 or not state.ready or queue.available() == 0:
            self.left = 0
            raise StopIteration
        self.left -= 1
        self.position = at
        size: u64 = queue.length()
        head: u32 = load16(queue.ram.word(state.avail, 4 + 2 * (at % size)))
        if head in state.in_flight:
            raise QueueError(f"queue {queue.name}: chain {head} is there twice")
        return queue.parse(head)


@cython.cclass
class Queue:
    """One virtqueue; see ``queue.pyi``."""

    name = cython.declare(object, visibility="readonly")
    memory = cython.declare(object, visibility="readonly")
    state = cython.declare(object, visibility="readonly")
    limit = cython.declare(u64, visibility="readonly")
    features = cython.declare(u64, visibility="public")
    interrupt: object
    ram: Ram

    def __init__(self, name, memory, state, limit, interrupt):
        self.name = name
        self.memory = memory
        self.ram = Ram(memory)
        self.state = state
        self.limit = limit
        self.interrupt = interrupt
        self.features = 0  # derived: what was negotiated, given by the transport

    def enable(self):
        state = self.state
        size = state.size
        if size > self.limit or size.bit_count() != 1:
            raise QueueError(
                f"queue {self.name}: size {size}, a power of 2 up to {self.limit} is needed"
            )
        for gpa, length, alignment in (
            (state.desc, 16 * size, 16),
            (state.avail, 6 + 2 * size, 2),
            (state.used, 6 + 8 * size, 4),
        ):
            if gpa % alignment:
                raise QueueError(f"queue {self.name}: {gpa:#x} is not aligned to {alignment}")
            self.ram.host(gpa, length)
        state.next_avail = state.next_used = state.signalled = 0
        state.in_flight = []
        state.ready = True

    def disable(self):
        self.state.ready = False
        self.state.in_flight = []

    def peek(self):
        found: Peek = Peek.__new__(Peek)
        found.queue = self
        found.left = self.state.size
        found.position = -1
        return found

    def pending(self):
        return bool(self.state.ready) and self.available() > 0

    def take(self, chain: Chain):
        state = self.state
        state.in_flight.append(chain.head)
        state.next_avail = (state.next_avail + 1) & 0xFFFF

    def put_back(self, chains):
        state = self.state
        for chain in chains:
            state.in_flight.remove(chain.head)
        state.next_avail = (state.next_avail - len(chains)) & 0xFFFF

    def in_flight(self):
        return [self.parse(head) for head in self.state.in_flight]

    def complete(self, chain: Chain, used: u32):
        if self.answer(chain, used, 0):
            self.show(1)

    def complete_together(self, chains, used):
        count: cython.int = 0
        for chain, length in zip(chains, used, strict=True):
            count += self.answer(chain, length, count)
        self.show(count)

    @cython.cfunc
    def answer(self, chain: Chain, used: u32, after: u16) -> cython.int:
        """Write the element of a chain, so many after the next one; return how many were written."""
        state = self.state
        element: P_u8
        place: u16
        if chain.answered:
            raise InternalBugError(f"queue {self.name}: chain {chain.head} answered twice")
        chain.answered = True
        if not state.ready:
            return 0
        taken: list = state.in_flight
        if chain.head in taken:
            taken.remove(chain.head)
        else:
            state.next_avail = (state.next_avail + 1) & 0xFFFF
        place = state.next_used
        place += after
        element = self.ram.part(state.used, 4 + 8 * (place % self.length()), 8)
        memcpy(element, cython.address(chain.head), 4)
        memcpy(element + 4, cython.address(used), 4)
        return 1

    @cython.cfunc
    def show(self, count: u16) -> cython.int:
        """Let the driver see elements that were written."""
        state = self.state
        next_used: u16
        if count == 0:
            return 0
        ring: u64 = state.used
        next_used = state.next_used
        next_used += count
        full_fence()  # the elements before the index that shows them (2.7.8.2)
        state.next_used = next_used
        store16(self.ram.word(ring, 2), next_used)
        self.ram.wrote(ring + 2, 2 + 8 * self.length())  # one notice for all
        return 0

    def notify(self):
        state = self.state
        event: u16
        new: u16
        wanted: cython.bint
        next_used: u16 = state.next_used
        signalled: u16 = state.signalled
        if next_used == signalled or not state.ready:
            return
        full_fence()  # the index before what the driver says about interrupts
        new = next_used - signalled
        if self.features & _EVENT_IDX:
            event = load16(self.ram.word(state.avail, 4 + 2 * self.length()))
            wanted = cast(u16, next_used - event - 1) < new
        else:
            wanted = load16(self.ram.word(state.avail, 0)) & _NO_INTERRUPT == 0
        state.signalled = next_used
        if wanted:
            self.interrupt()

    @cython.cfunc
    def length(self) -> u64:
        """Return how many descriptors the ring has; QueueError if there are none."""
        size: u64 = self.state.size
        if size == 0:
            raise QueueError(f"queue {self.name}: size 0, a power of 2 is needed")
        return size

    @cython.cfunc
    def available(self) -> cython.int:
        """Return how many chains are in the ring; when there are none, ask for a kick at the next."""
        count: cython.int = self.fresh()
        place: u64
        if count == 0 and self.features & _EVENT_IDX:
            state = self.state
            ring: u64 = state.used
            place = 4 + 8 * self.length()
            store16(self.ram.word(ring, place), state.next_avail)
            self.ram.wrote(ring + place, 2)
            full_fence()  # asked before looking again, or a chain added between would wait for ever
            count = self.fresh()
        return count

    @cython.cfunc
    def fresh(self) -> cython.int:
        state = self.state
        at: u16 = state.next_avail
        index: u16 = load16(self.ram.word(state.avail, 2))
        count: u16 = index - at
        if count > self.length():
            raise QueueError(
                f"queue {self.name}: available index jumped by {count}, queue size {state.size}"
            )
        if count:
            full_fence()  # the index before the ring it shows
        return count

    @cython.cfunc
    def parse(self, head: u32) -> Chain:
        """Follow a chain and check all of it."""
        d: Descriptor
        ram: Ram = self.ram
        table: u64 = self.state.desc
        limit: u64 = self.length()
        left: u64 = limit
        index: u64 = head
        inner: P_u8 = cython.NULL  # the indirect table, once the chain went there
        chain: Chain = Chain.__new__(Chain)
        chain.ram = ram
        chain.head = head
        while True:
            if index >= limit or left == 0:
                raise QueueError(
                    f"queue {self.name}: chain {head} goes to descriptor {index} of {limit} or loops"
                )
            if inner == cython.NULL:
                fetch(ram.part(table, 16 * index, 16), cython.address(d))
            else:
                fetch(inner + 16 * index, cython.address(d))
            left -= 1
            if d.flags & _INDIRECT:
                self.check_indirect(d.length, d.flags, inner != cython.NULL)
                inner = ram.host(d.gpa, d.length)
                limit = left = d.length // 16
                index = 0
                continue
            chain.append(d.gpa, d.length, d.flags & _WRITE != 0)
            if d.flags & _NEXT == 0:
                return chain
            index = d.following

    @cython.cfunc
    def check_indirect(self, length: u64, flags: u16, nested: cython.bint) -> cython.int:
        """Refuse what 2.7.5.3.1 forbids the driver."""
        why = ""
        if self.features & _INDIRECT_DESC == 0:
            why = "was not negotiated"
        elif nested:
            why = "is inside another"
        elif flags & _NEXT:
            why = "is not the last of its chain"
        elif length % 16 or length < 16 or length > 16 * self.limit:
            why = f"has {length} bytes, a multiple of 16 up to {16 * self.limit} is needed"
        if why:
            raise QueueError(f"queue {self.name}: indirect table {why}")
        return 0
