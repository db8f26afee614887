"""One request of the guest: the bytes it wrote and the room it gave.

Source: virtio 1.2, 2.7.4 and 2.7.5.
"""

from __future__ import annotations

from instar.errors import InternalBugError, QueueError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.memory import GuestMemory

    Segment = tuple[int, memoryview]

# Overlapping descriptors can claim more room than there is RAM. Linux splits far below this.
MAX_BYTES: Final = 256 << 20


class Chain:
    """A descriptor chain, checked: every byte of it is in RAM.

    The guest can still change the bytes while the device works, so a device reads a header once.

    Attributes:
        head: Number of its first descriptor.
        size: Bytes the guest wrote for the device.
        room: Bytes the device may write.
        answered: It went back to the guest.
    """

    __slots__ = ("answered", "head", "memory", "readable", "room", "size", "writable")

    def __init__(self, memory: GuestMemory, head: int) -> None:
        self.memory = memory
        self.head = head
        self.readable: list[Segment] = []
        self.writable: list[Segment] = []
        self.size = 0
        self.room = 0
        self.answered = False

    def add(self, gpa: int, length: int, *, device_writes: bool) -> None:
        """Append what one descriptor says.

        Raises:
            QueueError: it is empty, out of order, or the chain is too long; nothing was appended.
            GuestMemoryError: it is not in RAM; nothing was appended.
        """
        if length == 0:
            raise QueueError(f"descriptor of chain {self.head} is empty")
        if self.size + self.room + length > MAX_BYTES:
            raise QueueError(
                f"chain {self.head} has {self.size + self.room + length} bytes, limit {MAX_BYTES}"
            )
        view = self.memory.view(gpa, length)
        if device_writes:
            self.writable.append((gpa, view))
            self.room += length
        elif self.writable:
            raise QueueError(f"chain {self.head} has a readable descriptor after a writable one")
        else:
            self.readable.append((gpa, view))
            self.size += length

    def read(self, offset: int, length: int) -> bytes:
        """Return a copy of what the guest wrote at ``offset``.

        Raises:
            QueueError: the guest wrote less.
        """
        return b"".join(self.sources(offset, length))

    def sources(self, offset: int, length: int) -> list[memoryview]:
        """Return guest memory to read from, without a copy; QueueError if the guest wrote less."""
        if offset + length > self.size:
            raise QueueError(
                f"chain {self.head} has {self.size} bytes to read, {offset + length} are needed"
            )
        return [view for _, view in _cut(self.readable, offset, length)]

    def targets(self, offset: int, length: int) -> list[memoryview]:
        """Return guest memory to write to, without a copy; afterwards call :meth:`filled`."""
        self._check_room(offset, length)
        return [view for _, view in _cut(self.writable, offset, length)]

    def filled(self, offset: int, length: int) -> None:
        """Tell the CPU that ``length`` bytes from ``offset`` of the room were written."""
        for gpa, view in _cut(self.writable, offset, length):
            self.memory.written(gpa, len(view))

    def write(self, data: bytes | bytearray | memoryview, offset: int = 0) -> None:
        """Copy ``data`` into the room at ``offset``."""
        with memoryview(data).cast("B") as raw:
            length = len(raw)
            self._check_room(offset, length)
            done = 0
            for _, view in _cut(self.writable, offset, length):
                view[:] = raw[done : done + len(view)]
                done += len(view)
        self.filled(offset, length)

    def _check_room(self, offset: int, length: int) -> None:
        if offset < 0 or offset + length > self.room:  # the device's business to look at `room`
            raise InternalBugError(
                f"write of {length} bytes at {offset} into {self.room} bytes of a chain"
            )


def _cut(segments: list[Segment], offset: int, length: int) -> list[Segment]:
    """Return the part of ``segments`` from ``offset``, ``length`` bytes long."""
    cut: list[Segment] = []
    for gpa, view in segments:
        size = len(view)
        if offset == 0 and size <= length:  # all of it, as most are: a long transfer has hundreds
            cut.append((gpa, view))
            length -= size
        elif offset < size and length:
            part = view[offset : offset + length]
            cut.append((gpa + offset, part))
            length -= len(part)
            offset = 0
        else:
            offset = max(0, offset - size)
    return cut
