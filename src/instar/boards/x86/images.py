"""What goes into the block of boot images: kernel, initial RAM disk, and everything that a firmware would have made.

Not on the resume path: a program that goes on has the block already.

Source: own.
"""

from __future__ import annotations

from instar.boards.chunks import PAGE, Chunk, file_size, fill_block
from instar.boards.x86 import layout
from instar.boards.x86.acpi import acpi_tables
from instar.boards.x86.boot import BLOCK_ID, HEAD, MAGIC, MicrovmImages
from instar.boards.x86.bzimage import HEAD_SIZE, SetupHeader
from instar.boards.x86.elf import ElfKernel
from instar.boards.x86.mptable import MAX_CPUS, mp_table
from instar.boards.x86.params import boot_params, rng_seed, start_info
from instar.boards.x86.start import LINUX64, PVH, descriptor_table, page_tables
from instar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.boards.x86.params import Initrd
    from instar.memory.backend import FdTable

_LINUX_CMDLINE: Final = 2047  # bytes that Linux takes of an ELF kernel's command line


class BootRequest:
    """What the user asked to boot, and the machine it is for."""

    __slots__ = ("cmdline", "initrd", "kernel", "ram_size", "seed", "vcpus")

    def __init__(
        self, *, kernel: str, initrd: str, cmdline: str, ram_size: int, vcpus: int, seed: bytes
    ) -> None:
        self.kernel = kernel
        self.initrd = initrd
        self.cmdline = cmdline
        self.ram_size = ram_size
        self.vcpus = vcpus
        self.seed = seed


class _Kernel:
    """A kernel of either kind: its pieces, how it is entered, and what it leaves for others."""

    __slots__ = ("chunks", "cmdline_limit", "end", "entry", "header", "initrd_limit", "kind")

    def __init__(self, path: str) -> None:
        if not path:
            raise ConfigError(
                "-machine microvm has no firmware, so it needs a -kernel; nothing was started"
            )
        size = file_size(path, "-kernel")
        self.header: bytes | None = None
        self.cmdline_limit = _LINUX_CMDLINE
        self.initrd_limit = layout.LOW_RAM_MAX - 1
        with open(path, "rb", buffering=0) as file:
            head = file.read(HEAD_SIZE)
            if head.startswith(b"\x7fELF"):
                elf = ElfKernel(path, file.fileno())
                self.kind, self.entry = elf.kind, elf.entry
                self.chunks, self.end = elf.chunks, elf.end
                return
        setup = SetupHeader(path, head, size)
        self.header = setup.raw
        self.kind, self.entry = LINUX64, setup.entry
        length = size - setup.offset
        self.chunks = [
            Chunk(setup.load, path=path, offset=setup.offset, length=length, span=setup.span)
        ]
        self.end = setup.load + setup.span
        self.cmdline_limit = min(setup.cmdline_limit, layout.CMDLINE_LIMIT)
        self.initrd_limit = min(setup.initrd_limit, self.initrd_limit)


def load_images(request: BootRequest, fds: FdTable, *, share: bool) -> MicrovmImages:
    """Read kernel and initrd, place them, make the tables, and keep all of it in a block.

    Args:
        request: What to boot.
        fds: Where the block's descriptor is named.
        share: Keep the block in a memfd (``aux-ram-share=on``).

    Raises:
        ConfigError: a file is missing, unreadable, damaged or does not fit; nothing is left behind.
    """
    kernel = _Kernel(request.kernel)
    ram_end = min(request.ram_size, layout.LOW_RAM_MAX)
    if kernel.end > ram_end:
        raise ConfigError(
            f"-kernel {request.kernel}: needs RAM up to {kernel.end:#x}, it ends at {ram_end:#x}; nothing was started"
        ).hint("give the guest more memory with -m")
    cmdline = request.cmdline.encode("utf-8", "surrogateescape")
    if len(cmdline) > kernel.cmdline_limit or b"\0" in cmdline:
        raise ConfigError(
            f"-append: {len(cmdline)} bytes, the kernel takes {kernel.cmdline_limit} without NUL; nothing was started"
        )
    chunks = list(kernel.chunks)
    initrd = _place_initrd(request, kernel, ram_end, chunks)
    chunks.append(Chunk(layout.CMDLINE, data=cmdline + b"\0"))
    memory = layout.memory_map(request.ram_size)
    if kernel.kind == PVH:
        argument = layout.START_INFO
        chunks.append(Chunk(argument, data=start_info(memory, initrd)))
    else:
        argument = layout.BOOT_PARAMS
        chunks.append(Chunk(argument, data=boot_params(kernel.header, memory, initrd)))
        chunks.append(Chunk(layout.SETUP_DATA, data=rng_seed(request.seed)))
        chunks.append(Chunk(layout.PAGE_TABLES, data=page_tables()))
    chunks += _tables(kernel.kind, request.vcpus)
    _check_overlap(request.kernel, kernel.chunks)
    head = HEAD.pack(MAGIC, kernel.kind, kernel.entry, argument, len(chunks))
    return MicrovmImages(fill_block(BLOCK_ID, head, chunks, fds, share=share))


def _tables(kind: int, vcpus: int) -> list[Chunk]:
    found = [
        Chunk(layout.GDT, data=descriptor_table(kind)),
        Chunk(layout.ACPI_TABLES, data=acpi_tables(vcpus)),
    ]
    if vcpus <= MAX_CPUS:
        found.append(Chunk(layout.MP_TABLE, data=mp_table(vcpus)))
    return found


def _place_initrd(
    request: BootRequest, kernel: _Kernel, ram_end: int, chunks: list[Chunk]
) -> Initrd | None:
    """Put the initrd as high as the kernel takes it."""
    if not request.initrd:
        return None
    size = file_size(request.initrd, "-initrd")
    start = min(ram_end, kernel.initrd_limit + 1) - size & ~(PAGE - 1)
    if start < kernel.end:
        raise ConfigError(
            f"-initrd {request.initrd}: {size} bytes do not fit between the kernel's end {kernel.end:#x} and "
            f"{min(ram_end, kernel.initrd_limit + 1):#x}; nothing was started"
        ).hint("give the guest more memory with -m")
    chunks.append(Chunk(start, path=request.initrd, length=size))
    return start, size


def _check_overlap(path: str, chunks: list[Chunk]) -> None:
    """Refuse segments that lie on each other; all else has its place below or above the kernel."""
    end = 0
    for chunk in sorted(chunks, key=lambda c: c.gpa):
        if chunk.gpa < end:
            raise ConfigError(
                f"-kernel {path}: two segments overlap at {chunk.gpa:#x}; nothing was started"
            )
        end = chunk.gpa + chunk.span
