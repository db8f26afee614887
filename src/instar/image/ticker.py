"""The bare-metal guest, assembled from ``guest/ticker.s`` by our own instruction table.

Load :func:`ticker_image` as a kernel: a raw image for address :data:`LOAD_ADDRESS`, entered in S-mode. It needs
17 MiB of RAM. :func:`read_status` reads back what it did from the page at :data:`STATUS_ADDRESS`.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from instar.cpu.rv64.asm import Program, assemble
from instar.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

LOAD_ADDRESS: Final = 0x8020_0000
STATUS_ADDRESS: Final = 0x8021_0000
STATUS_SIZE: Final = 0x100 + 8 * 8
WINDOW_ADDRESS: Final = 0x8100_0000
MAGIC: Final = b"INSTARTK"
_SOURCE: Final = os.path.join(os.path.dirname(__file__), "guest", "ticker.s")
_STATUS: Final = struct.Struct("<8s7Q")


class TickerStatus(NamedTuple):
    """What the guest counted.

    Attributes:
        counter: Turns of the main loop.
        stamp: Guest time of the last turn, timebase ticks.
        checks: 64-bit words of the window that were verified.
        errors: Wrong words, times that went back, wrong sums in floating point.
        ticks: Ticks printed.
        timers: Timer interrupts.
        received: Characters from the console.
        turns: Turns of the loops of the other harts, by hart; the boot hart's is 0.
    """

    counter: int
    stamp: int
    checks: int
    errors: int
    ticks: int
    timers: int
    received: int
    turns: tuple[int, ...]


def ticker_program(defines: Mapping[str, int] | None = None) -> Program:
    """Assemble the guest.

    Args:
        defines: Values for its ``.equ`` constants: INTERVAL, TICK_EVERY, PATTERN, BUSY, HARTS (see the source).

    Returns:
        Image and symbols.

    Raises:
        AssemblyError: a define is none of its constants.
    """
    with open(_SOURCE, encoding="ascii") as file:
        return assemble(file.read(), LOAD_ADDRESS, defines=defines)


def ticker_image(defines: Mapping[str, int] | None = None) -> bytes:
    """Return the image of :func:`ticker_program`, to be loaded at :data:`LOAD_ADDRESS`."""
    return ticker_program(defines).image


def read_status(page: bytes) -> TickerStatus:
    """Read the guest's status page.

    Args:
        page: At least :data:`STATUS_SIZE` bytes of guest memory from :data:`STATUS_ADDRESS`.

    Raises:
        ConfigError: the page does not begin with the magic: the guest has not started, or is not this one.
    """
    magic, *counts = _STATUS.unpack_from(page)
    if magic != MAGIC:
        raise ConfigError(
            f"status page begins with {magic!r}, not {MAGIC!r}: no ticker runs there"
        )
    return TickerStatus._make((*counts, struct.unpack_from("<8Q", page, 0x100)))
