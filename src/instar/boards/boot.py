"""Boot images: what is copied into RAM at power-on and at every reset.

Kernel, initial RAM disk and the board's tables are kept in one RAM block of their own (``virt.boot``), which describes
itself: a header that each board has its own of, then the places of the images.
With ``-machine aux-ram-share=on`` that block is a memfd and crosses an update, so that a reset after it boots the very
same images, and no file is read inside the pause.

Source: own.
"""

from __future__ import annotations

import os
import struct

from instar.errors import ConfigError
from instar.memory.backend import BackendSpec, open_backend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.memory import GuestMemory, RamBlock
    from instar.memory.backend import FdTable

BLOCK_ID: Final = "virt.boot"
MAGIC: Final = b"INSTARBT"
HEAD: Final = struct.Struct("<8sQQQ")  # magic, entry point, device tree address, number of chunks
CHUNK: Final = struct.Struct("<QQQQ")  # guest address, offset in the block, length, zeros after it
MAX_CHUNKS: Final = 64


def no_images(block: RamBlock) -> ConfigError:
    """Return the error that says that ``block`` is none of ours."""
    return ConfigError(f"the inherited block {block.id} holds no boot images; nothing was started")


class Images:
    """A block of boot images: a header of its board's, a list of places, and the bytes.

    Args:
        block: The block.
        listed_at: Where the list begins, bytes.
        count: How many images there are.
    """

    __slots__ = ("_chunks", "block")

    def __init__(self, block: RamBlock, listed_at: int, count: int) -> None:
        self.block = block
        if count > MAX_CHUNKS:
            raise no_images(block)
        self._chunks = [
            CHUNK.unpack_from(block.view, listed_at + n * CHUNK.size) for n in range(count)
        ]
        for _, offset, length, _ in self._chunks:
            if offset + length > block.size:
                raise ConfigError(
                    f"the inherited block {block.id} is cut short; nothing was started"
                )

    def copy_to(self, memory: GuestMemory) -> None:
        """Write all images to guest RAM."""
        for gpa, offset, length, zeros in self._chunks:
            memory.write(gpa, self.block.view[offset : offset + length])
            memory.write(gpa + length, bytes(zeros))


class BootImages(Images):
    """The block of boot images of the board ``virt`` and what its header says."""

    __slots__ = ("entry", "fdt")

    def __init__(self, block: RamBlock) -> None:
        magic, self.entry, self.fdt, count = HEAD.unpack_from(block.view)
        if magic != MAGIC:
            raise no_images(block)
        super().__init__(block, HEAD.size, count)


def adopt_block(fds: FdTable, ident: str, *, inert: bool = False) -> RamBlock | None:
    """Return the block of that name which the program before this one left (in a rehearsal: a copy), if it left one."""
    fd = fds.find(f"memory/{ident}", 0)
    if fd < 0:
        return None
    spec = BackendSpec("memfd", ident, os.fstat(fd).st_size, share=True)
    return open_backend(spec, fds, inert=inert)


def adopt_images(fds: FdTable, *, inert: bool = False) -> BootImages | None:
    """Return the images that the program before this one left (in a rehearsal: a copy), None if it left none."""
    block = adopt_block(fds, BLOCK_ID, inert=inert)
    return None if block is None else BootImages(block)
