"""What goes into the block of boot images: kernel, initial RAM disk and device tree, found and placed.

Not on the resume path: a program that goes on has the block already.

Source: Linux Documentation/arch/riscv/boot-image-header.rst (Image header); ELF-64 object file format.
"""

from __future__ import annotations

import os
import struct

from instar.boards.boot import BLOCK_ID, HEAD, MAGIC, MAX_CHUNKS, BootImages
from instar.boards.chunks import MAX_IMAGE, PAGE, Chunk, file_size, fill_block
from instar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from instar.memory.backend import FdTable

KERNEL_OFFSET: Final = (
    0x200000  # bytes above RAM's start: Linux wants 2 MiB alignment, firmware's place is left free
)
_ALIGN_2M: Final = 0x200000
_IMAGE_HEAD: Final = struct.Struct("<IIQQQIIQ8sI")  # ..., text_offset, image_size, ..., magic2
_ELF_HEAD: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_ELF_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_EM_RISCV: Final = 243
_PT_LOAD: Final = 1


class BootRequest:
    """What the user asked to boot, and where RAM is."""

    __slots__ = ("cmdline", "initrd", "kernel", "ram_base", "ram_size")

    def __init__(
        self, *, kernel: str, initrd: str, cmdline: str, ram_base: int, ram_size: int
    ) -> None:
        self.kernel = kernel
        self.initrd = initrd
        self.cmdline = cmdline
        self.ram_base = ram_base
        self.ram_size = ram_size


def load_images(
    request: BootRequest,
    make_fdt: Callable[[tuple[int, int] | None], bytes],
    fds: FdTable,
    *,
    share: bool,
) -> BootImages:
    """Read kernel and initrd, place them, build the device tree and keep all of it in a block.

    Args:
        request: What to boot; an empty kernel gives a machine that starts at the start of RAM.
        make_fdt: Builds the device tree for the initrd's (start, end), None without one.
        fds: Where the block's descriptor is named.
        share: Keep the block in a memfd (``aux-ram-share=on``).

    Raises:
        ConfigError: a file is missing, unreadable or does not fit; nothing is left behind.
    """
    ram_end = request.ram_base + request.ram_size
    entry, chunks = _kernel_chunks(request)
    top = ram_end - _ALIGN_2M & ~(_ALIGN_2M - 1)
    initrd: tuple[int, int] | None = None
    if request.initrd:
        size = file_size(request.initrd, "-initrd")
        start = top - size & ~(PAGE - 1)
        initrd = (start, start + size)
        chunks.append(Chunk(start, path=request.initrd, length=size))
    fdt = make_fdt(initrd)
    fdt_gpa = top if top > request.ram_base else ram_end - len(fdt) & ~7
    chunks.append(Chunk(fdt_gpa, data=fdt))
    _check_places(request, chunks)
    head = HEAD.pack(MAGIC, entry, fdt_gpa, len(chunks))
    return BootImages(fill_block(BLOCK_ID, head, chunks, fds, share=share))


def _check_places(request: BootRequest, chunks: list[Chunk]) -> None:
    """Refuse images that do not fit into RAM or lie on each other."""
    ram_end = request.ram_base + request.ram_size
    previous = request.ram_base
    for chunk in sorted(chunks, key=lambda c: c.gpa):
        if chunk.gpa < previous or chunk.gpa + chunk.span > ram_end:
            raise ConfigError(
                f"boot images do not fit: {chunk.path or 'device tree'} needs {chunk.span} bytes at {chunk.gpa:#x}, "
                f"RAM ends at {ram_end:#x}; nothing was started"
            ).hint("give the guest more memory with -m")
        previous = chunk.gpa + chunk.span


def _kernel_chunks(request: BootRequest) -> tuple[int, list[Chunk]]:
    """Return the entry point and the kernel's chunks: an Image, an ELF file, or raw code."""
    base = request.ram_base + KERNEL_OFFSET
    if not request.kernel:
        return request.ram_base, []
    size = file_size(request.kernel, "-kernel")
    with open(request.kernel, "rb", buffering=0) as file:
        head = file.read(_IMAGE_HEAD.size)
        if head.startswith(b"\x7fELF"):
            return _elf_chunks(request.kernel, file.fileno())
    if len(head) == _IMAGE_HEAD.size:
        fields = _IMAGE_HEAD.unpack(head)
        if fields[9] == 0x05435352:  # "RSC\x05"
            base = request.ram_base + (fields[2] or KERNEL_OFFSET)
            return base, [
                Chunk(base, path=request.kernel, length=size, span=min(fields[3], MAX_IMAGE))
            ]
    return base, [Chunk(base, path=request.kernel, length=size)]


def _elf_chunks(path: str, fd: int) -> tuple[int, list[Chunk]]:
    head = os.pread(fd, _ELF_HEAD.size, 0)
    if len(head) < _ELF_HEAD.size:
        raise ConfigError(f"-kernel {path}: the ELF header is cut short; nothing was started")
    ident, _, machine, _, entry, phoff, _, _, _, phentsize, phnum, *_ = _ELF_HEAD.unpack(head)
    if (
        ident[4] != 2
        or machine != _EM_RISCV
        or phentsize != _ELF_SEGMENT.size
        or phnum > MAX_CHUNKS - 2
    ):
        raise ConfigError(f"-kernel {path}: not a 64-bit RISC-V ELF program; nothing was started")
    size = os.fstat(fd).st_size
    table = os.pread(fd, phentsize * phnum, min(phoff, size))
    chunks: list[Chunk] = []
    for n in range(len(table) // phentsize):
        kind, _, offset, _, paddr, filesz, memsz, _ = _ELF_SEGMENT.unpack_from(
            table, n * phentsize
        )
        if kind == _PT_LOAD and memsz:
            if offset + filesz > size or memsz > MAX_IMAGE:
                raise ConfigError(
                    f"-kernel {path}: segment {n} is larger than its file; nothing was started"
                )
            chunk = Chunk(paddr, path=path, offset=offset, length=filesz, span=memsz)
            chunk.zeros = chunk.span - chunk.length
            chunks.append(chunk)
    return entry, chunks
