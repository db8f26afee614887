"""A guest's virtio driver, as Linux would drive a virtio-mmio slot, and the means to misbehave.

It sees the machine as a guest does: registers through the address space, rings in guest RAM.

Source: virtio 1.2, 2.7, 3.1 and 4.2.3.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from instar.virtio import features as f

if TYPE_CHECKING:
    from instar.memory import AddressSpace

NEXT, WRITE, INDIRECT = 1, 2, 4
_ALL = (1 << 64) - 1


class Used(NamedTuple):
    """An answered chain."""

    head: int
    length: int  # bytes the device says it wrote
    data: bytes  # all the room of the chain, as it is now


class Ring:
    """One queue as its driver keeps it."""

    def __init__(self, index: int, size: int, desc: int) -> None:
        self.index = index
        self.size = size
        self.desc = desc
        self.avail = desc + 16 * size
        self.used = (self.avail + 6 + 2 * size + 3) & ~3
        self.end = self.used + 6 + 8 * size
        self.free = list(range(size))
        self.next_avail = 0
        self.next_used = 0
        self.chains: dict[int, tuple[list[int], list[tuple[int, int]]]] = {}


class VirtioDriver:
    """Drive the slot at ``base``.

    Args:
        space: The machine's memory.
        base: Guest address of the slot's registers.
        heap: Guest address of RAM that belongs to the driver.
        size: Bytes of it.
    """

    def __init__(self, space: AddressSpace, base: int, heap: int, size: int = 0x8_0000) -> None:
        self.space = space
        self.memory = space.memory
        self.base = base
        self.heap = heap
        self.end = heap + size
        self.rings: list[Ring] = []
        self.features = 0

    # ------------------------------------------------------------------- registers

    def read(self, offset: int, size: int = 4) -> int:
        """Read a register."""
        return self.space.mmio_read(self.base + offset, size)

    def write(self, offset: int, value: int, size: int = 4) -> None:
        """Write a register."""
        self.space.mmio_write(self.base + offset, size, value)

    @property
    def status(self) -> int:
        """The device status."""
        return self.read(0x70)

    @property
    def needs_reset(self) -> bool:
        """Whether the device gave up."""
        return bool(self.status & f.NEEDS_RESET)

    def config(self, offset: int, size: int) -> int:
        """Read the configuration space, once the generation holds still (4.2.2.2)."""
        while True:
            before = self.read(0xFC)
            value = self.read(0x100 + offset, size)
            if self.read(0xFC) == before:
                return value

    def acknowledge(self) -> int:
        """Read and acknowledge the interrupt status."""
        causes = self.read(0x60)
        self.write(0x64, causes)
        return causes

    # ------------------------------------------------------------------- initialisation (3.1.1)

    def negotiate(self, wanted: int = _ALL) -> int:
        """Reset, and agree on the wanted ones of the offered features; return what was agreed."""
        self.write(0x70, 0)
        self.write(0x70, f.ACKNOWLEDGE)
        self.write(0x70, f.ACKNOWLEDGE | f.DRIVER)
        offered = 0
        for word in (0, 1):
            self.write(0x14, word)
            offered |= self.read(0x10) << 32 * word
        self.features = offered & wanted
        for word in (0, 1):
            self.write(0x24, word)
            self.write(0x20, self.features >> 32 * word & 0xFFFF_FFFF)
        self.write(0x70, f.ACKNOWLEDGE | f.DRIVER | f.FEATURES_OK)
        return self.features if self.status & f.FEATURES_OK else 0

    def add_queue(self, size: int = 8) -> Ring:
        """Make the next queue and hand it over."""
        ring = Ring(len(self.rings), size, (self.heap + 15) & ~15)
        self.heap = ring.end
        self.memory.write(ring.desc, bytes(ring.end - ring.desc))
        self.rings.append(ring)
        self.write(0x30, ring.index)
        self.write(0x38, size)
        for offset, gpa in ((0x80, ring.desc), (0x90, ring.avail), (0xA0, ring.used)):
            self.write(offset, gpa & 0xFFFF_FFFF)
            self.write(offset + 4, gpa >> 32)
        self.write(0x44, 1)
        return ring

    def start(self, wanted: int = _ALL, *, queues: int = 1, size: int = 8) -> int:
        """Do the whole initialisation; return the features."""
        self.rings = []
        features = self.negotiate(wanted)
        for _ in range(queues):
            self.add_queue(size)
        self.write(0x70, f.ACKNOWLEDGE | f.DRIVER | f.FEATURES_OK | f.DRIVER_OK)
        return features

    # ------------------------------------------------------------------- chains

    def add(self, *parts: bytes | int, queue: int = 0, indirect: bool = False) -> int:
        """Make a chain available and return its head.

        Args:
            parts: bytes are a buffer for the device to read; a number is room of that many bytes for it to write.
            queue: Which queue.
            indirect: Put the chain into an indirect table.
        """
        ring = self.rings[queue]
        buffers = [self._buffer(part) for part in parts]
        rooms = [(gpa, length) for gpa, length, flags in buffers if flags & WRITE]
        if indirect:
            buffers = [self._table(buffers)]
        slots = [ring.free.pop(0) for _ in buffers]
        for n, (gpa, length, flags) in enumerate(buffers):
            more = n + 1 < len(slots)
            following = slots[n + 1] if more else 0
            self.put_desc(
                ring.desc, slots[n], gpa, length, flags | (NEXT if more else 0), following
            )
        ring.chains[slots[0]] = (slots, rooms)
        self.offer(slots[0], queue=queue)
        return slots[0]

    def put_desc(
        self, table: int, index: int, gpa: int, length: int, flags: int, following: int
    ) -> None:
        """Write one descriptor, whatever it says."""
        entry = struct.pack("<QIHH", gpa, length, flags, following)
        self.memory.write(table + 16 * index, entry)

    def offer(self, head: int, *, queue: int = 0) -> None:
        """Put ``head`` into the available ring, whatever it is."""
        ring = self.rings[queue]
        self.memory.put_u16(ring.avail + 4 + 2 * (ring.next_avail % ring.size), head)
        ring.next_avail = (ring.next_avail + 1) & 0xFFFF
        self.memory.put_u16(ring.avail + 2, ring.next_avail)

    def kick(self, queue: int = 0) -> None:
        """Notify the device."""
        self.write(0x50, queue)

    def collect(self, queue: int = 0) -> list[Used]:
        """Take all answered chains out of the used ring."""
        ring = self.rings[queue]
        answered: list[Used] = []
        while ring.next_used != self.memory.u16(ring.used + 2):
            element = ring.used + 4 + 8 * (ring.next_used % ring.size)
            head, length = struct.unpack("<II", self.memory.read(element, 8))
            ring.next_used = (ring.next_used + 1) & 0xFFFF
            slots, rooms = ring.chains.pop(head)
            ring.free += slots
            data = b"".join(self.memory.read(gpa, size) for gpa, size in rooms)
            answered.append(Used(head, length, data))
        if self.features & f.EVENT_IDX:  # interrupt me at the next one
            self.memory.put_u16(ring.avail + 4 + 2 * ring.size, ring.next_used)
        return answered

    def request(self, *parts: bytes | int, queue: int = 0, indirect: bool = False) -> Used:
        """Add a chain, kick, and return its answer, which has to be there at once."""
        self.add(*parts, queue=queue, indirect=indirect)
        self.kick(queue)
        (answer,) = self.collect(queue)
        return answer

    def _buffer(self, part: bytes | int) -> tuple[int, int, int]:
        if isinstance(part, int):
            return self.allocate(part), part, WRITE
        gpa = self.allocate(len(part))
        self.memory.write(gpa, part)
        return gpa, len(part), 0

    def _table(self, buffers: list[tuple[int, int, int]]) -> tuple[int, int, int]:
        table = self.allocate(16 * len(buffers))
        for n, (gpa, length, flags) in enumerate(buffers):
            more = n + 1 < len(buffers)
            self.put_desc(table, n, gpa, length, flags | (NEXT if more else 0), n + 1)
        return table, 16 * len(buffers), INDIRECT

    def allocate(self, length: int) -> int:
        """Return the guest address of ``length`` fresh bytes, aligned to 16."""
        gpa = (self.heap + 15) & ~15
        if gpa + length > self.end:
            raise MemoryError(f"the driver has no {length} bytes left; make its heap larger")
        self.heap = gpa + length
        return gpa
