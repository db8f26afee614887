"""What a disk counted; it belongs to the host's side and goes with the descriptors through an update."""

from __future__ import annotations

from instar.cpr.state import State, save, state, u

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_KINDS: Final[dict[str, str]] = {
    "read": "rd",
    "write": "wr",
    "write-zeroes": "wr",
    "flush": "flush",
    "discard": "unmap",
}


@state("block", version=1)
class BlockState(State):
    """Requests of the guest that ended, since the machine was first started.

    Source: own; names and meaning are those of QEMU's BlockDeviceStats.
    """

    rd_bytes: int = u(64, "Read.", unit="bytes")
    wr_bytes: int = u(64, "Written or zeroed.", unit="bytes")
    unmap_bytes: int = u(64, "Discarded.", unit="bytes")
    rd_operations: int = u(64, "Reads that succeeded.")
    wr_operations: int = u(64, "Writes that succeeded.")
    flush_operations: int = u(64, "Flushes that succeeded.")
    unmap_operations: int = u(64, "Discards that succeeded.")
    rd_total_time_ns: int = u(64, "Time spent on reads.", unit="ns")
    wr_total_time_ns: int = u(64, "Time spent on writes.", unit="ns")
    flush_total_time_ns: int = u(64, "Time spent on flushes.", unit="ns")
    unmap_total_time_ns: int = u(64, "Time spent on discards.", unit="ns")
    failed_rd_operations: int = u(64, "Reads that failed.")
    failed_wr_operations: int = u(64, "Writes that failed.")
    failed_flush_operations: int = u(64, "Flushes that failed.")
    failed_unmap_operations: int = u(64, "Discards that failed.")
    wr_highest_offset: int = u(64, "End of the written byte furthest back.", unit="bytes")

    def count(self, op: str, offset: int, length: int, error: int, time_ns: int) -> None:
        """Count one request that ended.

        Args:
            op: What it was, as in a BlockRequest.
            offset: Where it began, bytes.
            length: Bytes; 0 for a flush.
            error: 0 or its errno.
            time_ns: From its submission to its end.
        """
        kind = _KINDS[op]
        self._add(f"{kind}_total_time_ns", time_ns)
        if error:
            self._add(f"failed_{kind}_operations", 1)
            return
        self._add(f"{kind}_operations", 1)
        if kind != "flush":
            self._add(f"{kind}_bytes", length)
        if kind == "wr":
            self.wr_highest_offset = max(self.wr_highest_offset, offset + length)

    def counters(self) -> dict[str, int]:
        """Return all counters by name."""
        return {name: value for name, value in save(self).items() if isinstance(value, int)}

    def _add(self, name: str, amount: int) -> None:
        setattr(self, name, getattr(self, name) + amount)
