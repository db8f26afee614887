"""The software CPU: RV64GC harts that are interpreted."""

from __future__ import annotations

from instar.cpu.rv64._core import (
    EXIT_BREAK,
    EXIT_DEFERRED,
    EXIT_IDLE,
    EXIT_KICKED,
    EXIT_LIMIT,
    EXIT_WATCH,
    Core,
    address_of,
)

__all__ = [
    "EXIT_BREAK",
    "EXIT_DEFERRED",
    "EXIT_IDLE",
    "EXIT_KICKED",
    "EXIT_LIMIT",
    "EXIT_WATCH",
    "Core",
    "address_of",
]
