"""An ELF program as a kernel: its segments, and where it wants to be entered.

Source: System V gABI, "Program Header"; Xen public/elfnote.h (XEN_ELFNOTE_PHYS32_ENTRY).
"""

from __future__ import annotations

import os
import struct

from instar.boards.chunks import MAX_IMAGE, Chunk
from instar.boards.x86.layout import KERNEL_LOW
from instar.boards.x86.start import LINUX64, PVH
from instar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

_HEAD: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_NOTE: Final = struct.Struct("<III")
_X86_64: Final = 62
_PT_LOAD, _PT_NOTE = 1, 4
_PHYS32_ENTRY: Final = 18
MAX_SEGMENTS: Final = 32
_MAX_NOTES: Final = 1 << 20  # bytes; Linux has a few hundred
_BELOW: Final = 1 << 32  # an entry without paging cannot be higher


class ElfKernel:
    """What is loaded of an ELF program, and how it is entered.

    Attributes:
        kind: ``start.PVH`` if a note asks for it, else ``start.LINUX64``.
        entry: Guest address.
        chunks: The segments.
        end: Guest address behind the highest one.
    """

    __slots__ = ("chunks", "end", "entry", "kind")

    def __init__(self, path: str, fd: int) -> None:
        """Read the headers of an open file.

        Raises:
            ConfigError: they are damaged, or not of an x86-64 program.
        """
        size = os.fstat(fd).st_size
        head = os.pread(fd, _HEAD.size, 0)
        if len(head) < _HEAD.size:
            raise ConfigError(f"-kernel {path}: the ELF header is cut short; nothing was started")
        ident, _, machine, _, start, phoff, _, _, _, phentsize, phnum, *_ = _HEAD.unpack(head)
        if ident[4:6] != b"\x02\x01" or machine != _X86_64 or phentsize != _SEGMENT.size:
            raise ConfigError(
                f"-kernel {path}: is not a 64-bit x86 ELF program; nothing was started"
            )
        if not 0 < phnum <= MAX_SEGMENTS or phoff + phnum * _SEGMENT.size > size:
            raise ConfigError(
                f"-kernel {path}: has {phnum} program headers at {phoff:#x} of {size} bytes, "
                f"allowed 1 to {MAX_SEGMENTS} inside; nothing was started"
            )
        table = os.pread(fd, phnum * _SEGMENT.size, phoff)
        self.chunks: list[Chunk] = []
        pvh = 0
        for n, row in enumerate(_SEGMENT.iter_unpack(table)):
            kind, _, offset, _, paddr, filesz, memsz, _ = row
            if kind == _PT_LOAD and memsz:
                self.chunks.append(_chunk(path, n, size, (offset, paddr, filesz, memsz)))
            elif kind == _PT_NOTE and offset + filesz <= size:
                pvh = pvh or _pvh_entry(os.pread(fd, min(filesz, _MAX_NOTES), offset))
        self.kind = PVH if pvh else LINUX64
        self.entry = pvh or start
        self.end = max((chunk.gpa + chunk.span for chunk in self.chunks), default=0)
        inside = any(chunk.gpa <= self.entry < chunk.gpa + chunk.length for chunk in self.chunks)
        if not inside:
            raise ConfigError(
                f"-kernel {path}: is entered at {self.entry:#x}, where none of its segments is; nothing was started"
            )


def _chunk(path: str, n: int, size: int, row: tuple[int, int, int, int]) -> Chunk:
    offset, paddr, filesz, memsz = row
    if offset + filesz > size or filesz > memsz or memsz > MAX_IMAGE:
        raise ConfigError(
            f"-kernel {path}: segment {n} has {filesz} of {memsz} bytes at {offset:#x} of a file of {size}; "
            "nothing was started"
        )
    if paddr < KERNEL_LOW or paddr + memsz > _BELOW:
        raise ConfigError(
            f"-kernel {path}: segment {n} is for {memsz} bytes at {paddr:#x}, where no kernel can be; "
            "nothing was started"
        )
    chunk = Chunk(paddr, path=path, offset=offset, length=filesz, span=memsz)
    chunk.zeros = memsz - filesz
    return chunk


def _pvh_entry(notes: bytes) -> int:
    """Return the address in the note that asks for the PVH entry; 0 if there is none."""
    for name, kind, data in _notes(notes):
        if name == b"Xen\0" and kind == _PHYS32_ENTRY and len(data) in {4, 8}:
            return int.from_bytes(data, "little")
    return 0


def _notes(data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield (name, type, description) of whole notes."""
    at = 0
    while at + _NOTE.size <= len(data):
        name_size, size, kind = _NOTE.unpack_from(data, at)
        at += _NOTE.size
        middle = at + (name_size + 3 & ~3)
        end = middle + (size + 3 & ~3)
        if middle + size > len(data):
            return
        yield data[at : at + name_size], kind, data[middle : middle + size]
        at = end
