"""Boot images of the board ``microvm`` and how the first processor enters them.

The block crosses updates, also between releases: its layout is for ever (docs/decisions/0009). What the processor's
registers are follows from the kind of entry, and the tables that they point to are images of the block.

Source: own.
"""

from __future__ import annotations

import struct

from instar.boards.boot import Images, adopt_block, no_images
from instar.boards.x86.start import LINUX64, PVH, StartState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.memory import RamBlock
    from instar.memory.backend import FdTable

BLOCK_ID: Final = "microvm.boot"
MAGIC: Final = b"INSTARBX"
HEAD: Final = struct.Struct(
    "<8sQQQQ"
)  # magic, kind of entry, entry point, argument, number of images


class MicrovmImages(Images):
    """The block of boot images and what its header says."""

    __slots__ = ("argument", "entry", "kind")

    def __init__(self, block: RamBlock) -> None:
        magic, self.kind, self.entry, self.argument, count = HEAD.unpack_from(block.view)
        if magic != MAGIC or self.kind not in {LINUX64, PVH}:
            raise no_images(block)
        super().__init__(block, HEAD.size, count)

    def start(self) -> StartState:
        """Return the registers of the first processor."""
        return StartState(self.kind, self.entry, self.argument)


def adopt_images(fds: FdTable, *, inert: bool = False) -> MicrovmImages | None:
    """Return the images that the program before this one left (in a rehearsal: a copy), None if it left none."""
    block = adopt_block(fds, BLOCK_ID, inert=inert)
    return None if block is None else MicrovmImages(block)
