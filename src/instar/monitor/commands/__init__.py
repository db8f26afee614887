"""All commands by topic; importing this fills the table of ``instar.monitor.command``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from instar.monitor.commands import (
    balloon,
    block,
    chardev,
    cpu,
    fdsets,
    machine,
    memory,
    migration,
    monitor,
    network,
    replay,
    sandbox,
    throttle,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from instar.monitor.context import Context

# What an HMP prompt can wait for: returns what to print when it has come, None while it has not.
WAITS: Final[dict[str, Callable[[Context], str | None]]] = {
    "migrate": migration.outcome,
    "update": migration.update_outcome,
}

__all__ = [
    "WAITS", "balloon", "block", "chardev", "cpu", "fdsets", "machine", "memory", "migration", "monitor", "network",
    "replay", "sandbox", "throttle",
]  # fmt: skip
