"""Pieces of boot images: bytes of files or made ones, each with its place in guest memory, written into a RAM block.

Not on the resume path: a program that goes on has the block already.

Source: own.
"""

from __future__ import annotations

import os
import stat

from instar.boards.boot import CHUNK, MAX_CHUNKS
from instar.errors import ConfigError, InternalBugError
from instar.memory.backend import BackendSpec, open_backend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from instar.memory import RamBlock
    from instar.memory.backend import FdTable

MAX_IMAGE: Final = 1 << 30  # bytes of one file; a larger "kernel" is a mistake
PAGE: Final = 4096


class Chunk:
    """Bytes of a file (or given ones) and where the guest finds them.

    ``span`` is the RAM they need; ``zeros`` of it after the bytes are cleared (an ELF program relies on that, a kernel
    Image clears its own).
    """

    __slots__ = ("data", "gpa", "length", "offset", "path", "span", "zeros")

    def __init__(
        self,
        gpa: int,
        *,
        path: str = "",
        offset: int = 0,
        length: int = 0,
        data: bytes = b"",
        span: int = 0,
    ) -> None:
        self.gpa = gpa
        self.path = path
        self.offset = offset
        self.data = data
        self.length = len(data) if data else length
        self.span = max(span, self.length)
        self.zeros = 0


def file_size(path: str, option: str) -> int:
    """Return the bytes of the regular file that ``option`` names.

    Raises:
        ConfigError: there is none, or it has not 1 byte to 1 GiB.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe has no other end
        found = os.fstat(fd)
        os.close(fd)
    except OSError as e:
        raise ConfigError(
            f"{option} {path}: {os.strerror(e.errno or 0)}; nothing was started"
        ) from e
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{option} {path}: is not a regular file; nothing was started")
    size = found.st_size
    if not 0 < size <= MAX_IMAGE:
        raise ConfigError(
            f"{option} {path}: {size} bytes, allowed 1 to {MAX_IMAGE}; nothing was started"
        )
    return size


def fill_block(
    ident: str,
    head: bytes,
    chunks: Sequence[Chunk],
    fds: FdTable,
    *,
    share: bool,
    room: int = PAGE,
) -> RamBlock:
    """Return a new block that begins with ``head`` and the places of all chunks; their bytes follow.

    Args:
        ident: Name of the block.
        head: What comes before the list of places.
        chunks: At most 64.
        fds: Where the block's descriptor is named.
        share: Keep the block in a memfd.
        room: Bytes for head and list, whole pages.

    Raises:
        ConfigError: a file ends before its time; nothing is left behind but the name.
    """
    if len(chunks) > MAX_CHUNKS or len(head) + len(chunks) * CHUNK.size > room:
        raise InternalBugError(f"{len(chunks)} boot images, limit {MAX_CHUNKS}")
    offset = room
    places: list[int] = []
    for chunk in chunks:
        places.append(offset)
        offset += chunk.length + PAGE - 1 & ~(PAGE - 1)
    block = open_backend(BackendSpec("ram", ident, offset, share=share), fds)
    block.view[: len(head)] = head
    for n, (chunk, place) in enumerate(zip(chunks, places, strict=True)):
        CHUNK.pack_into(
            block.view, len(head) + n * CHUNK.size, chunk.gpa, place, chunk.length, chunk.zeros
        )
        target = block.view[place : place + chunk.length]
        if chunk.data:
            target[:] = chunk.data
        else:
            _read_into(chunk, target)
    return block


def _read_into(chunk: Chunk, target: memoryview) -> None:
    fd = os.open(chunk.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        done = 0
        while done < len(target):
            got = os.preadv(fd, [target[done:]], chunk.offset + done)
            if not got:
                raise ConfigError(
                    f"{chunk.path}: ends after {done} of {len(target)} bytes; nothing was started"
                )
            done += got
    finally:
        os.close(fd)
