"""Boot images: what is copied into RAM at power-on and at every reset.

Kernel, initial RAM disk and device tree are kept in one RAM block of their own (``virt.boot``), which describes itself.
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


class BootImages:
    """The block of boot images and what its header says."""

    __slots__ = ("_chunks", "block", "entry", "fdt")

    def __init__(self, block: RamBlock) -> None:
        self.block = block
        magic, self.entry, self.fdt, count = HEAD.unpack_from(block.view)
        if magic != MAGIC or count > MAX_CHUNKS:
            raise ConfigError(
                f"the inherited block {BLOCK_ID} holds no boot images; nothing was started"
            )
        self._chunks = [
            CHUNK.unpack_from(block.view, HEAD.size + n * CHUNK.size) for n in range(count)
        ]
        for _, offset, length, _ in self._chunks:
            if offset + length > block.size:
                raise ConfigError(
                    f"the inherited block {BLOCK_ID} is cut short; nothing was started"
                )

    def copy_to(self, memory: GuestMemory) -> None:
        """Write all images to guest RAM."""
        for gpa, offset, length, zeros in self._chunks:
            memory.write(gpa, self.block.view[offset : offset + length])
            memory.write(gpa + length, bytes(zeros))


def adopt_images(fds: FdTable, *, inert: bool = False) -> BootImages | None:
    """Return the images that the program before this one left (in a rehearsal: a copy), None if it left none."""
    fd = fds.find(f"memory/{BLOCK_ID}", 0)
    if fd < 0:
        return None
    spec = BackendSpec("memfd", BLOCK_ID, os.fstat(fd).st_size, share=True)
    return BootImages(open_backend(spec, fds, inert=inert))
