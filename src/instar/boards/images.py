"""What goes into the block of boot images: kernel, initial RAM disk and device tree, found and placed.

Not on the resume path: a program that goes on has the block already.

Source: Linux Documentation/arch/riscv/boot-image-header.rst (Image header); ELF-64 object file format.
"""

from __future__ import annotations

import os
import stat
import struct

from instar.boards.boot import BLOCK_ID, CHUNK, HEAD, MAGIC, MAX_CHUNKS, BootImages
from instar.errors import ConfigError
from instar.memory.backend import BackendSpec, open_backend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from instar.memory import RamBlock
    from instar.memory.backend import FdTable

MAX_IMAGE: Final = 1 << 30  # bytes of one file; a larger "kernel" is a mistake
KERNEL_OFFSET: Final = (
    0x200000  # bytes above RAM's start: Linux wants 2 MiB alignment, firmware's place is left free
)
_PAGE: Final = 4096
_ALIGN_2M: Final = 0x200000
_IMAGE_HEAD: Final = struct.Struct("<IIQQQIIQ8sI")  # ..., text_offset, image_size, ..., magic2
_ELF_HEAD: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_ELF_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_EM_RISCV: Final = 243
_PT_LOAD: Final = 1


class Chunk:
    """Bytes of a file (or given ones) and where the guest finds them.

    ``span`` is the RAM they need; ``zeros`` of it after the bytes are cleared (an ELF program relies on that, a kernel
    Image clears its own).
    """

    __slots__ = ("data", "gpa", "length", "offset", "path", "span", "zeros")

    def __init__(
        self,
        gpa: int,
        *,
        path: str = "",
        offset: int = 0,
        length: int = 0,
        data: bytes = b"",
        span: int = 0,
    ) -> None:
        self.gpa = gpa
        self.path = path
        self.offset = offset
        self.data = data
        self.length = len(data) if data else length
        self.span = max(span, self.length)
        self.zeros = 0


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
        size = _file_size(request.initrd, "-initrd")
        start = top - size & ~(_PAGE - 1)
        initrd = (start, start + size)
        chunks.append(Chunk(start, path=request.initrd, length=size))
    fdt = make_fdt(initrd)
    fdt_gpa = top if top > request.ram_base else ram_end - len(fdt) & ~7
    chunks.append(Chunk(fdt_gpa, data=fdt))
    _check_places(request, chunks)
    return BootImages(_fill_block(entry, fdt_gpa, chunks, fds, share=share))


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


def _file_size(path: str, option: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe has no other end
        found = os.fstat(fd)
        os.close(fd)
    except OSError as e:
        raise ConfigError(
            f"{option} {path}: {os.strerror(e.errno or 0)}; nothing was started"
        ) from e
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{option} {path}: is not a regular file; nothing was started")
    size = found.st_size
    if not 0 < size <= MAX_IMAGE:
        raise ConfigError(
            f"{option} {path}: {size} bytes, allowed 1 to {MAX_IMAGE}; nothing was started"
        )
    return size


def _kernel_chunks(request: BootRequest) -> tuple[int, list[Chunk]]:
    """Return the entry point and the kernel's chunks: an Image, an ELF file, or raw code."""
    base = request.ram_base + KERNEL_OFFSET
    if not request.kernel:
        return request.ram_base, []
    size = _file_size(request.kernel, "-kernel")
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


def _fill_block(
    entry: int, fdt: int, chunks: list[Chunk], fds: FdTable, *, share: bool
) -> RamBlock:
    offset = _PAGE
    places: list[int] = []
    for chunk in chunks:
        places.append(offset)
        offset += chunk.length + _PAGE - 1 & ~(_PAGE - 1)
    block = open_backend(BackendSpec("ram", BLOCK_ID, offset, share=share), fds)
    HEAD.pack_into(block.view, 0, MAGIC, entry, fdt, len(chunks))
    for n, (chunk, place) in enumerate(zip(chunks, places, strict=True)):
        CHUNK.pack_into(
            block.view, HEAD.size + n * CHUNK.size, chunk.gpa, place, chunk.length, chunk.zeros
        )
        target = block.view[place : place + chunk.length]
        if chunk.data:
            target[:] = chunk.data
        else:
            _read_into(chunk, target)
    return block


def _read_into(chunk: Chunk, target: memoryview) -> None:
    fd = os.open(chunk.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        done = 0
        while done < len(target):
            got = os.preadv(fd, [target[done:]], chunk.offset + done)
            if not got:
                raise ConfigError(
                    f"{chunk.path}: ends after {done} of {len(target)} bytes; nothing was started"
                )
            done += got
    finally:
        os.close(fd)
