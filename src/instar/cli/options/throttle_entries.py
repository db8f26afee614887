"""The keys of ``-drive`` that limit a disk."""

from __future__ import annotations

from instar.block.limits import FIRST_IOPS, MAX_GROUP_NAME, MAX_VALUE, NAMES
from instar.cli.options.table import Key

_PARTS = {"total": "reads and writes together", "read": "reads", "write": "writes"}


def _keys_of(number: int) -> tuple[Key, ...]:
    """Return the keys of one limit."""
    name = NAMES[number]
    unit = "bytes" if number < FIRST_IOPS else "requests"
    part = _PARTS[name.partition("-")[2]]
    return (
        Key(f"throttling.{name}", "int", f"{unit} a second, {part}; 0: no limit", high=MAX_VALUE, default="0"),
        Key(f"throttling.{name}-max", "int", f"{unit} a second in a burst of {part}; 0: no bursts", high=MAX_VALUE,
            default="0"),
        Key(f"throttling.{name}-max-length", "int", "longest burst at its peak, s", low=1, high=MAX_VALUE,
            default="1"),
    )  # fmt: skip


THROTTLE_KEYS = (
    *(key for number in range(len(NAMES)) for key in _keys_of(number)),
    Key("throttling.iops-size", "int", "a request of more bytes counts as several; 0: never", high=MAX_VALUE,
        default="0"),
    Key("throttling.group", "text", "disks of one group share their limits, the last one's", low=1,
        high=MAX_GROUP_NAME, default="the drive's id"),
)  # fmt: skip
