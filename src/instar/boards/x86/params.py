"""What a kernel is told when it starts: Linux boot parameters, or PVH start information.

Source: Linux Documentation/arch/x86/zero-page.rst and boot.rst; Xen public/arch-x86/hvm/start_info.h.
"""

from __future__ import annotations

import struct

from instar.boards.x86.bzimage import HEADER_AT, MAGIC
from instar.boards.x86.layout import ACPI_TABLES, CMDLINE, SETUP_DATA, START_INFO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

ZERO_PAGE: Final = 4096
SETUP_RNG_SEED: Final = 9
_NO_LOADER_ID: Final = 0xFF
_E820: Final = struct.Struct("<QQI")
_E820_AT: Final = 0x2D0
_SETUP_DATA: Final = struct.Struct("<QII")  # next, type, length
# A header for an ELF kernel, which has none: from 0x1F1, as much as Linux looks at.
_PLAIN_HEADER: Final = bytearray(0x268 - HEADER_AT)
_PLAIN_HEADER[0x1FE - HEADER_AT : 0x200 - HEADER_AT] = b"\x55\xaa"
_PLAIN_HEADER[0x202 - HEADER_AT : 0x206 - HEADER_AT] = MAGIC
_PLAIN_HEADER[0x206 - HEADER_AT : 0x208 - HEADER_AT] = b"\x0f\x02"
_PLAIN_HEADER[0x211 - HEADER_AT] = 1  # loaded high

_PVH_MAGIC: Final = 0x336E_C578
_PVH_VERSION: Final = 1
_START: Final = struct.Struct("<IIIIQQQQII")
_MODULE: Final = struct.Struct("<QQQQ")
_MEMORY: Final = struct.Struct("<QQII")

Initrd = tuple[int, int]  # guest address, bytes


def boot_params(
    header: bytes | None, memory: Sequence[tuple[int, int, int]], initrd: Initrd | None
) -> bytes:
    """Return the zero page.

    Args:
        header: The setup header of the bzImage, from 0x1F1; None for an ELF kernel.
        memory: As ``layout.memory_map`` returns it.
        initrd: Where it is.
    """
    page = bytearray(ZERO_PAGE)
    raw = _PLAIN_HEADER if header is None else header
    page[HEADER_AT : HEADER_AT + len(raw)] = raw
    page[0x210] = _NO_LOADER_ID
    start, size = initrd or (0, 0)
    struct.pack_into("<II", page, 0x218, start, size)
    struct.pack_into("<I", page, 0x228, CMDLINE)
    struct.pack_into("<Q", page, 0x250, SETUP_DATA)
    struct.pack_into("<Q", page, 0x70, ACPI_TABLES)
    page[0x1E8] = len(memory)
    for n, entry in enumerate(memory):
        _E820.pack_into(page, _E820_AT + n * _E820.size, *entry)
    return bytes(page)


def rng_seed(seed: bytes) -> bytes:
    """Return the setup data that is at ``layout.SETUP_DATA``: random bytes for the kernel."""
    return _SETUP_DATA.pack(0, SETUP_RNG_SEED, len(seed)) + seed


def start_info(memory: Sequence[tuple[int, int, int]], initrd: Initrd | None) -> bytes:
    """Return the PVH start information, its modules and its memory map behind it; for ``layout.START_INFO``."""
    modules = _MODULE.pack(*initrd, 0, 0) if initrd else b""
    modules_at = START_INFO + _START.size
    head = _START.pack(
        *(_PVH_MAGIC, _PVH_VERSION, 0, len(modules) // _MODULE.size),
        *(modules_at if modules else 0, CMDLINE, ACPI_TABLES),
        *(modules_at + len(modules), len(memory), 0),
    )
    return head + modules + b"".join(_MEMORY.pack(*entry, 0) for entry in memory)
