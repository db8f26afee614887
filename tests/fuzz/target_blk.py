"""A hostile driver over blk: see ``instar.testing.hostile`` for what the bytes mean."""

import fuzz_paths  # noqa: F401
from fuzz_seeds import scripts
from hostile_worlds import MAKERS


def fuzz(data: bytes) -> None:
    """Run the script; whatever it says, the device works after a reset."""
    MAKERS["blk"]().run(data)


def seeds() -> list[bytes]:
    """Scripts that reach the device's own messages."""
    return scripts("blk")
