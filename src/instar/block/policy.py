"""What follows from a failed request: the guest is told, it is not, or the machine waits for the host to be repaired.

Source: own; words and defaults are QEMU's ``rerror`` and ``werror``.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Literal

    from instar.block.request import Op

    Action = Literal["report", "ignore", "stop"]
    ReadRule = Literal["report", "ignore", "stop"]
    WriteRule = Literal["report", "ignore", "stop", "enospc"]

READ_RULES: Final[tuple[ReadRule, ...]] = ("report", "ignore", "stop")
WRITE_RULES: Final[tuple[WriteRule, ...]] = ("report", "ignore", "stop", "enospc")


class ErrorPolicy:
    """``rerror`` and ``werror`` of one disk.

    Attributes:
        read: What a failed read leads to.
        write: What any other failed request leads to; ``enospc`` stops for a full host only and reports the rest.
    """

    __slots__ = ("read", "write")

    def __init__(self, *, read: ReadRule = "report", write: WriteRule = "enospc") -> None:
        self.read: ReadRule = read
        self.write: WriteRule = write

    def action(self, op: Op, error: int) -> Action:
        """Return what to do about ``op`` that failed with the errno ``error``."""
        if op == "read":
            return self.read
        if self.write == "enospc":
            return "stop" if error == errno.ENOSPC else "report"
        return self.write
