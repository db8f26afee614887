"""What disks counted and how they are throttled: the host's side, which goes with the descriptors through an update."""

from __future__ import annotations

from instar.cpr.state import State, flag, save, state, subs, text, u, us

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
        if op == "read" and not error:  # most are this or a write
            self.rd_operations += 1
            self.rd_bytes += length
            self.rd_total_time_ns += time_ns
        elif op == "write" and not error:
            self.wr_operations += 1
            self.wr_bytes += length
            self.wr_total_time_ns += time_ns
            self.wr_highest_offset = max(self.wr_highest_offset, offset + length)
        else:
            self._count_other(_KINDS[op], offset, length, error, time_ns)

    def _count_other(self, kind: str, offset: int, length: int, error: int, time_ns: int) -> None:
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


@state("throttle-group", version=1)
class ThrottleGroupState(State):
    """Limits that some disks share, and how full their buckets are.

    Source: own; see instar.block.limits for the order of the six limits.
    """

    name: str = text("Name of the group.", max=127)
    chosen: bool = flag("A monitor gave it these limits: a command line does not change them.")
    limits: list[int] = us(
        64, "Six rates, six peaks, and how many seconds each peak may last.", length=18
    )
    iops_size: int = u(64, "A larger request counts as several, 0: never.", unit="bytes")
    empty_ns: list[int] = us(
        64,
        "Virtual time at which each bucket is empty: six of the rates, six of the peaks.",
        length=12,
    )


@state("throttled-disk", version=1)
class ThrottledDiskState(State):
    """A disk whose limits a monitor chose."""

    disk: str = text("Name of the disk.", max=127)
    group: str = text("Whose limits it keeps to; empty: it has none.", max=127)


@state("throttle", version=1)
class ThrottleState(State):
    """Throttling of all disks; it belongs to the host's side."""

    groups: list[ThrottleGroupState] = subs(ThrottleGroupState, "Groups with disks.", max=4096)
    disks: list[ThrottledDiskState] = subs(ThrottledDiskState, "Disks of monitors.", max=4096)
