"""What a disk asks of its back end."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    Op = Literal["read", "write", "flush", "discard", "write-zeroes"]


class BlockRequest:
    """One operation on the bytes ``offset`` to ``offset + length``.

    Attributes:
        op: What to do.
        offset: Bytes from the start of the disk.
        length: Bytes; the sum of ``buffers`` for reads and writes, 0 for a flush.
        buffers: Views that are read from or written to in place; they stay valid until ``done``.
        done: Called once, as ``done(error)``: 0 or an errno. After an error of a read the buffers are undefined.
        durable: The bytes are on stable storage before ``done(0)``.
        unmap: Zeroed space may be given back to the host.
        started_ns: When the back end got it, host monotonic time; set by the back end.
    """

    __slots__ = ("buffers", "done", "durable", "length", "offset", "op", "started_ns", "unmap")

    def __init__(  # noqa: PLR0913 - one record, all of it known when it is made
        self,
        op: Op,
        offset: int,
        length: int,
        buffers: list[memoryview],
        done: Callable[[int], object],
        *,
        durable: bool = False,
        unmap: bool = False,
    ) -> None:
        self.op: Op = op
        self.offset = offset
        self.length = length
        self.buffers = buffers
        self.done = done
        self.durable = durable
        self.unmap = unmap
        self.started_ns = 0
