"""The guest's physical address space: RAM for devices (checked DMA) and MMIO for the CPU.

Source: own; the region listing follows QEMU's ``info mtree``.
"""

from __future__ import annotations

from instar.errors import GuestMemoryError, InternalBugError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Protocol

    from typing_extensions import Buffer, CapsuleType

    from instar.memory.backend import RamBlock

    class MmioDevice(Protocol):
        """A device as the address space sees it; offsets are relative to its region."""

        def mmio_read(self, offset: int, size: int, /) -> int:
            """Return the ``size`` (1, 2, 4, 8) bytes at ``offset``, little-endian."""
            ...

        def mmio_write(self, offset: int, size: int, value: int, /) -> None:
            """Store the low ``size`` bytes of ``value`` at ``offset``."""
            ...

    class PioDevice(Protocol):
        """A device at I/O ports as the address space sees it; offsets are relative to its first port."""

        def pio_read(self, offset: int, size: int, /) -> int:
            """Return the ``size`` (1, 2, 4) bytes at ``offset``, little-endian."""
            ...

        def pio_write(self, offset: int, size: int, value: int, /) -> None:
            """Store the low ``size`` bytes of ``value`` at ``offset``."""
            ...


PAGE_SHIFT: Final = 12
PORTS: Final = 1 << 16  # I/O ports of an x86 machine
NOTHING: Final = -1  # what mmio_read and mmio_write return where nothing answers


class MmioRegion:
    """One device's window."""

    __slots__ = ("base", "device", "name", "size")

    def __init__(self, base: int, size: int, device: MmioDevice, name: str) -> None:
        self.base = base
        self.size = size
        self.device = device
        self.name = name


class PioRegion:
    """One device's ports."""

    __slots__ = ("base", "device", "name", "size")

    def __init__(self, base: int, size: int, device: PioDevice, name: str) -> None:
        self.base = base
        self.size = size
        self.device = device
        self.name = name


class RamRegion:
    """Where a RAM block, or a part of it, is seen by the guest, with views for aligned accesses of each width.

    Attributes:
        base: Guest address of the first byte.
        end: Guest address behind the last one.
        size: Bytes.
        block: Where the bytes are.
        start: Which byte of the block is the first one.
        view: The bytes.
    """

    __slots__ = ("base", "block", "end", "size", "start", "u16", "u32", "u64", "view")

    def __init__(self, base: int, block: RamBlock, start: int, size: int) -> None:
        self.base = base
        self.end = base + size
        self.size = size
        self.block = block
        self.start = start
        self.view = block.view[start : start + size]
        self.u16 = self.view.cast("H")
        self.u32 = self.view.cast("I")
        self.u64 = self.view.cast("Q")


class GuestMemory:
    """What a device may do to guest RAM: every access is checked, nothing is touched on a fault.

    All methods raise GuestMemoryError if any byte lies outside RAM (or, for ``u16`` and the like, if the
    address is not aligned to the access); nothing was read or written then.
    """

    __slots__ = ("_on_write", "_regions", "notice")

    def __init__(self) -> None:
        self._regions: list[RamRegion] = []
        self._on_write: Callable[[int, int], object] | None = None  # set by on_write()
        self.notice: CapsuleType | None = None  # the same

    def on_write(
        self, callback: Callable[[int, int], object], notice: CapsuleType | None = None
    ) -> None:
        """Call ``callback(gpa, length)`` after each device write: the CPU drops decoded code there.

        ``notice`` is the same as a C function, for compiled parts; the callback keeps alive what it needs.
        """
        self._on_write = callback
        self.notice = notice

    def add(self, region: RamRegion) -> None:
        """Let devices access ``region``."""
        self._regions.append(region)

    def regions(self) -> list[tuple[int, memoryview]]:
        """Return where RAM begins for the guest, and the memory there, for code that checks by itself."""
        return [(region.base, region.view) for region in self._regions]

    def _region(self, gpa: int, length: int) -> RamRegion:
        for region in self._regions:
            if region.base <= gpa and gpa + length <= region.end and length >= 0:
                return region
        raise GuestMemoryError(gpa, length)

    def view(self, gpa: int, length: int) -> memoryview:
        """Return guest memory without a copy; after writing through it, call :meth:`written`."""
        region = self._region(gpa, length)
        start = gpa - region.base
        return region.view[start : start + length]

    def read(self, gpa: int, length: int) -> bytes:
        """Return a copy of ``length`` bytes at ``gpa``."""
        return bytes(self.view(gpa, length))

    def write(self, gpa: int, data: Buffer) -> None:
        """Store ``data`` at ``gpa``."""
        with memoryview(data).cast("B") as raw:
            length = len(raw)
            self.view(gpa, length)[:] = raw
        self.written(gpa, length)

    def written(self, gpa: int, length: int) -> None:
        """Tell the CPU that a device changed these bytes."""
        if self._on_write is not None and length:
            self._on_write(gpa, length)

    def _index(self, gpa: int, width: int) -> tuple[RamRegion, int]:
        region = self._region(gpa, width)
        if gpa % width:
            raise GuestMemoryError(gpa, width, f"not aligned to {width} bytes")
        return region, (gpa - region.base) // width

    def u16(self, gpa: int) -> int:
        """Load 2 bytes at once."""
        region, index = self._index(gpa, 2)
        return region.u16[index]

    def u32(self, gpa: int) -> int:
        """Load 4 bytes at once."""
        region, index = self._index(gpa, 4)
        return region.u32[index]

    def u64(self, gpa: int) -> int:
        """Load 8 bytes at once."""
        region, index = self._index(gpa, 8)
        return region.u64[index]

    def put_u16(self, gpa: int, value: int) -> None:
        """Store 2 bytes at once."""
        region, index = self._index(gpa, 2)
        region.u16[index] = value
        self.written(gpa, 2)

    def put_u32(self, gpa: int, value: int) -> None:
        """Store 4 bytes at once."""
        region, index = self._index(gpa, 4)
        region.u32[index] = value
        self.written(gpa, 4)

    def put_u64(self, gpa: int, value: int) -> None:
        """Store 8 bytes at once."""
        region, index = self._index(gpa, 8)
        region.u64[index] = value
        self.written(gpa, 8)


class AddressSpace:
    """RAM and devices by guest physical address, and devices by I/O port.

    Attributes:
        memory: RAM for devices.
        ram: Where RAM is, in the order in which it was added.
        mmio: Devices in memory.
        pio: Devices at ports.
    """

    __slots__ = ("_pages", "_ports", "memory", "mmio", "pio", "ram")

    def __init__(self) -> None:
        self.memory = GuestMemory()
        self.ram: list[RamRegion] = []
        self.mmio: list[MmioRegion] = []
        self.pio: list[PioRegion] = []
        self._pages: dict[int, MmioRegion] = {}  # every device here owns whole pages
        self._ports: dict[int, PioRegion] = {}

    def add_ram(self, base: int, block: RamBlock, start: int = 0, size: int = -1) -> None:
        """Show ``block``, or ``size`` bytes of it from ``start``, at ``base`` (all page aligned).

        Raises:
            InternalBugError: these bytes are not all in the block, or other RAM is there; nothing was added.
        """
        size = block.size - start if size < 0 else size
        if start < 0 or size <= 0 or start + size > block.size:
            raise InternalBugError(
                f"{block.id}: {size} bytes from {start:#x} are not in a block of {block.size}"
            )
        for other in self.ram:
            if base < other.end and other.base < base + size:
                raise InternalBugError(
                    f"{block.id}: RAM at {base:#x} overlaps that at {other.base:#x}"
                )
        region = RamRegion(base, block, start, size)
        self.ram.append(region)
        self.memory.add(region)

    def add_mmio(self, base: int, size: int, device: MmioDevice, name: str) -> None:
        """Give ``device`` the whole pages that hold ``size`` bytes from ``base``.

        Raises:
            InternalBugError: another device has one of the pages, or ``base`` is not page aligned.
        """
        if base & ((1 << PAGE_SHIFT) - 1):
            raise InternalBugError(f"{name}: MMIO base {base:#x} is not page aligned")
        region = MmioRegion(base, size, device, name)
        for page in range(base >> PAGE_SHIFT, (base + size - 1 >> PAGE_SHIFT) + 1):
            other = self._pages.setdefault(page, region)
            if other is not region:
                raise InternalBugError(f"{name}: MMIO at {base:#x} overlaps {other.name}")
        self.mmio.append(region)

    def add_pio(self, base: int, size: int, device: PioDevice, name: str) -> None:
        """Give ``device`` the ports ``base`` to ``base + size - 1``.

        Raises:
            InternalBugError: another device has one of them, or there is no such port.
        """
        if not 0 <= base < base + size <= PORTS:
            raise InternalBugError(f"{name}: ports {base:#x} to {base + size - 1:#x} do not exist")
        region = PioRegion(base, size, device, name)
        for port in range(base, base + size):
            other = self._ports.setdefault(port, region)
            if other is not region:
                raise InternalBugError(f"{name}: port {port:#x} belongs to {other.name}")
        self.pio.append(region)

    def mmio_read(self, gpa: int, size: int) -> int:
        """Load from a device; NOTHING (-1) where none answers."""
        region = self._pages.get(gpa >> PAGE_SHIFT)
        if region is None:
            return NOTHING
        offset = gpa - region.base
        if offset + size > region.size:
            return NOTHING
        return region.device.mmio_read(offset, size)

    def mmio_write(self, gpa: int, size: int, value: int) -> int:
        """Store to a device; 0, or NOTHING (-1) where none answers."""
        region = self._pages.get(gpa >> PAGE_SHIFT)
        if region is None:
            return NOTHING
        offset = gpa - region.base
        if offset + size > region.size:
            return NOTHING
        region.device.mmio_write(offset, size, value)
        return 0

    def pio_read(self, port: int, size: int) -> int:
        """Read ``size`` (1, 2, 4) bytes from ``port``; NOTHING (-1) where no device answers to all of them."""
        region = self._ports.get(port)
        if region is None:
            return NOTHING
        offset = port - region.base
        if offset + size > region.size:
            return NOTHING
        return region.device.pio_read(offset, size)

    def pio_write(self, port: int, size: int, value: int) -> int:
        """Write ``size`` (1, 2, 4) bytes to ``port``; 0, or NOTHING (-1) where no device takes all of them."""
        region = self._ports.get(port)
        if region is None:
            return NOTHING
        offset = port - region.base
        if offset + size > region.size:
            return NOTHING
        region.device.pio_write(offset, size, value)
        return 0
