"""Memory back ends: where the bytes of a RAM block live on the host.

A block whose bytes are shared (a memfd, or a file mapped ``share=on``) is named by a descriptor and crosses an
update in place; an anonymous private one cannot, which is a migration blocker (see ``instar.migration``).
"""

from __future__ import annotations

import mmap
import os
import stat

from instar.errors import ConfigError, HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Literal, Protocol

    Kind = Literal["memfd", "ram", "file"]

    class FdTable(Protocol):
        """What is needed of the table of named descriptors (``instar.cpr.fds.Fds``)."""

        def find(self, name: str, ident: int, /) -> int:
            """Return the descriptor of that name and id, or -1."""
            ...

        def save(self, name: str, ident: int, fd: int, /, *, kind: str, owner: str) -> None:
            """Name a descriptor, so that an update carries it."""
            ...


PAGE: Final = mmap.PAGESIZE
MIN_SIZE: Final = 4096  # bytes
MAX_SIZE: Final = 1 << 40  # bytes; more than any guest here can address
_MAP_NORESERVE: Final = 0x4000  # <asm-generic/mman.h>, not named by Python 3.11's stubs
_HUGE_SHIFT: Final = 26  # <linux/memfd.h>: the size of huge pages is in the flags, as a logarithm
_MADV_POPULATE_WRITE: Final = 23  # Linux 5.14, not named by Python 3.11
FD_OWNER: Final = "memory"
_ZEROS: Final = bytes(1 << 20)


class BackendSpec:
    """What the user asked for: one ``-object memory-backend-*`` (or the default RAM).

    Attributes:
        kind: ``memfd``, ``ram`` or ``file``.
        id: Unique name of the object; also the name of its descriptor across updates.
        size: Bytes, a multiple of 4096.
        share: Whether the bytes are shared with whoever has the descriptor.
        prealloc: Touch every page when the block is made (never again after an update).
        path: File or directory (kind ``file``).
        huge: Size of the host's huge pages that it is made of (kind ``memfd``), bytes; 0: ordinary pages.
    """

    __slots__ = ("huge", "id", "kind", "path", "prealloc", "share", "size")

    def __init__(  # noqa: PLR0913 - a bundle, named parts
        self,
        kind: Kind,
        ident: str,
        size: int,
        *,
        share: bool,
        prealloc: bool = False,
        path: str = "",
        huge: int = 0,
    ) -> None:
        self.huge = huge
        self.kind: Kind = kind
        self.id = ident
        self.size = size
        self.share = share
        self.prealloc = prealloc
        self.path = path

    def check(self) -> None:
        """Refuse sizes that no block can have.

        Raises:
            ConfigError: the size is out of range or odd; nothing was created.
        """
        if not MIN_SIZE <= self.size <= MAX_SIZE:
            raise ConfigError(
                f"memory backend {self.id}: size {self.size} bytes, allowed {MIN_SIZE} to {MAX_SIZE}"
            )
        if self.huge and self.size % self.huge:
            raise ConfigError(
                f"memory backend {self.id}: size {self.size} bytes is not a multiple of hugetlbsize {self.huge}"
            )
        if self.size % MIN_SIZE:
            raise ConfigError(
                f"memory backend {self.id}: size {self.size} bytes is not a multiple of {MIN_SIZE}"
            )


class RamBlock:
    """Mapped bytes of guest RAM.

    Attributes:
        id: Unique name.
        size: Bytes.
        fd: The descriptor that names the bytes, -1 if they are anonymous.
        share: Whether another mapping of ``fd`` sees this one's writes: what an update needs.
        view: All bytes, writable, shape ``(size,)``; valid as long as the block.
        adopted: The block came from the program before this one, with its contents.
    """

    __slots__ = ("_content", "adopted", "fd", "id", "map", "share", "size", "view")

    def __init__(
        self,
        ident: str,
        mapping: mmap.mmap,
        *,
        fd: int,
        share: bool,
        adopted: bool,
        content: bool = False,
    ) -> None:
        self.id = ident
        self.map = mapping
        self.size = len(mapping)
        self.fd = fd
        self.share = share
        self.adopted = adopted
        self.view = memoryview(mapping)
        self._content = content and not share  # of a file, which a private mapping shows again

    def clear(self) -> None:
        """Make all bytes zero, giving their pages back to the host where it can."""
        self.give_back(0, self.size)

    def give_back(self, start: int, length: int) -> None:
        """Make ``length`` bytes from ``start`` zero, giving their pages back to the host where it can.

        Args:
            start: A multiple of the host's page size, or the bytes stay with the host.
            length: Bytes, inside the block.
        """
        advice = mmap.MADV_REMOVE if self.share else mmap.MADV_DONTNEED
        try:
            self.map.madvise(advice, start, length)
        except (
            OSError,
            ValueError,
        ):  # a file system without holes, or pages larger than the guest's
            self._zero(start, length)
        else:
            if self._content:
                self._zero(start, length)

    def _zero(self, start: int, length: int) -> None:
        end = start + length
        for at in range(start, end, len(_ZEROS)):
            part = min(end, at + len(_ZEROS))
            self.view[at:part] = _ZEROS[: part - at]


def open_backend(spec: BackendSpec, fds: FdTable, *, inert: bool = False) -> RamBlock:
    """Make the block of ``spec``, or find it among the descriptors of an update and map it in place.

    Args:
        spec: What the user asked for.
        fds: The table of named descriptors.
        inert: In a rehearsal: map what was inherited so that no write reaches it, and make nothing.

    Raises:
        ConfigError: ``spec`` contradicts itself or what was inherited.
        HostError: the host refused; nothing is left behind.
    """
    spec.check()
    name = f"memory/{spec.id}"
    inherited = fds.find(name, 0)
    if inherited >= 0:
        return _map(spec, inherited, adopted=True, inert=inert)
    if inert and spec.share:
        raise ConfigError(f"memory backend {spec.id}: the program before has no such memory")
    if spec.kind == "ram" and not spec.share:
        return _map(spec, -1, adopted=False)
    try:
        fd = _open_file(spec) if spec.kind == "file" else _open_memfd(spec)
    except OSError as e:
        where = f" {spec.path}" if spec.path else ""
        raise HostError(
            f"memory backend {spec.id}:{where} {spec.size} bytes: {os.strerror(e.errno or 0)}; nothing was created"
        ) from e
    try:
        block = _map(spec, fd, adopted=False)
    except BaseException:
        os.close(fd)
        raise
    if block.share:
        fds.save(name, 0, fd, kind="memory", owner=FD_OWNER)
    return block


def _open_memfd(spec: BackendSpec) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    if spec.huge:
        flags |= os.MFD_HUGETLB | (spec.huge.bit_length() - 1) << _HUGE_SHIFT
    fd = os.memfd_create(f"memory-backend-{spec.id}"[:200], flags)
    try:
        os.ftruncate(fd, spec.size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_file(spec: BackendSpec) -> int:
    """Open or create the backing file; a directory gives an unnamed file in it, as QEMU does."""
    if not spec.path:
        raise ConfigError(
            f"memory backend {spec.id}: mem-path is required for memory-backend-file"
        )
    if os.path.isdir(spec.path):
        fd = os.open(spec.path, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    else:
        fd = os.open(spec.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        info = os.fstat(fd)
        if stat.S_ISREG(info.st_mode) and info.st_size == 0:
            os.ftruncate(fd, spec.size)
        elif stat.S_ISREG(info.st_mode) and info.st_size < spec.size:
            raise ConfigError(
                f"memory backend {spec.id}: backing store {spec.path} has {info.st_size} bytes, "
                f"fewer than size {spec.size}; it was not changed"
            )
    except BaseException:
        os.close(fd)
        raise
    return fd


def _map(spec: BackendSpec, fd: int, *, adopted: bool, inert: bool = False) -> RamBlock:
    if adopted and os.fstat(fd).st_size < spec.size:
        raise ConfigError(
            f"memory backend {spec.id}: backing store size {os.fstat(fd).st_size} bytes is too small "
            f"for the size {spec.size} of this command line"
        )
    flags = mmap.MAP_SHARED if spec.share and fd >= 0 and not inert else mmap.MAP_PRIVATE
    flags |= mmap.MAP_ANONYMOUS if fd < 0 else 0
    # Huge pages are reserved: one that is missing when the guest touches it would end the program (SIGBUS).
    flags |= 0 if spec.huge and not inert else _MAP_NORESERVE
    try:
        mapping = mmap.mmap(fd, spec.size, flags)
    except (OSError, ValueError) as e:
        raise _cannot_map(spec, e) from e
    if not spec.huge:
        _ask_for_huge(mapping)
    if spec.prealloc and not adopted:  # an inherited block keeps its pages; touching them is pause
        _populate(spec, mapping)
    return RamBlock(
        spec.id,
        mapping,
        fd=fd,
        share=spec.share and fd >= 0,
        adopted=adopted,
        content=spec.kind == "file",
    )


def _cannot_map(spec: BackendSpec, e: OSError | ValueError) -> HostError:
    why = os.strerror(e.errno or 0) if isinstance(e, OSError) else e
    error = HostError(f"memory backend {spec.id}: cannot map {spec.size} bytes: {why}")
    if spec.huge:
        error.hint(
            f"the host must have {spec.size // spec.huge} free huge pages of {spec.huge >> 10} KiB, "
            "see /sys/kernel/mm/hugepages"
        )
    return error


def _ask_for_huge(mapping: mmap.mmap) -> None:
    """Let the kernel use huge pages where it does so for those who ask (shmem_enabled=advise)."""
    try:
        mapping.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a kernel without
        return


def _populate(spec: BackendSpec, mapping: mmap.mmap) -> None:
    try:
        mapping.madvise(_MADV_POPULATE_WRITE)
    except OSError as e:
        raise HostError(
            f"memory backend {spec.id}: cannot preallocate {spec.size} bytes: {os.strerror(e.errno or 0)}"
        ) from e
