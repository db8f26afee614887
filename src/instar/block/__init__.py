"""Block back ends: where the bytes of a guest's disk are on the host."""

from instar.block.raw import BlockSpec, RawBlock, open_block
from instar.block.request import BlockRequest

__all__ = ["BlockRequest", "BlockSpec", "RawBlock", "open_block"]
