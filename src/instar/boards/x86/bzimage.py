"""The setup header of a bzImage: what a boot loader has to know of the kernel inside.

Source: Linux Documentation/arch/x86/boot.rst (protocol 2.12 and later).
"""

from __future__ import annotations

import struct

from instar.boards.x86.layout import KERNEL_LOW
from instar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MAGIC_AT: Final = 0x202
MAGIC: Final = b"HdrS"
HEADER_AT: Final = 0x1F1
HEADER_END: Final = 0x290  # of the part of the zero page that is for it
HEAD_SIZE: Final = 4096  # bytes of a file that hold any header
_OLDEST: Final = 0x20C  # 2.12: the first that says whether there is a 64-bit entry
_ENTRY_64: Final = 0x200
_SECTOR: Final = 512
_DEFAULT_SECTORS: Final = 4
_KERNEL_64: Final = 1
_LOADED_HIGH: Final = 1


class SetupHeader:
    """What a bzImage says of itself.

    Attributes:
        raw: The header as the kernel wants it back in its boot parameters, from 0x1F1.
        offset: Where the kernel proper begins in the file; it goes to the end.
        load: Guest address that it is made for.
        entry: Guest address of the 64-bit entry.
        span: Bytes from ``load`` that it needs before it looks at the memory map.
        cmdline_limit: Bytes of the command line, without the NUL.
        initrd_limit: Highest address of the initial RAM disk's last byte.
    """

    __slots__ = ("cmdline_limit", "entry", "initrd_limit", "load", "offset", "raw", "span")

    def __init__(self, path: str, head: bytes, size: int) -> None:
        """Read ``head``, the first 4 KiB of a file of ``size`` bytes.

        Raises:
            ConfigError: it is no bzImage, it is damaged, or it has no 64-bit entry.
        """
        if len(head) < HEADER_END or head[MAGIC_AT : MAGIC_AT + 4] != MAGIC:
            raise ConfigError(
                f"-kernel {path}: is neither a bzImage nor an ELF program; nothing was started"
            )
        (version,) = struct.unpack_from("<H", head, 0x206)
        if version < _OLDEST:
            raise ConfigError(
                f"-kernel {path}: boot protocol {version >> 8}.{version & 0xFF:02}, 2.12 is needed; nothing was started"
            )
        end = 0x202 + head[0x201]  # the jump at the beginning goes over the header
        (xloadflags,) = struct.unpack_from("<H", head, 0x236)
        if not xloadflags & _KERNEL_64 or not head[0x211] & _LOADED_HIGH:
            raise ConfigError(f"-kernel {path}: has no 64-bit entry; nothing was started")
        initrd_max, self.cmdline_limit = (
            struct.unpack_from("<I", head, at)[0] for at in (0x22C, 0x238)
        )
        self.load, init_size = struct.unpack_from("<QI", head, 0x258)
        self.raw = head[HEADER_AT : min(end, HEADER_END)]
        self.offset = ((head[HEADER_AT] or _DEFAULT_SECTORS) + 1) * _SECTOR
        self.initrd_limit = initrd_max
        self.entry = self.load + _ENTRY_64
        length = size - self.offset
        if end < 0x268 or length <= _ENTRY_64:
            raise ConfigError(
                f"-kernel {path}: is cut short ({size} bytes, the kernel begins at {self.offset}); nothing was started"
            )
        if self.load < KERNEL_LOW or self.load & 0xFFF:
            raise ConfigError(
                f"-kernel {path}: wants to be at {self.load:#x}, where no kernel can be; nothing was started"
            )
        self.span = max(init_size, length)
