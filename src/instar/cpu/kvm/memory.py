"""Guest RAM as KVM sees it: slots of the host's memory, and which pages the guest has written.

The kernel notes written pages in a bitmap for each slot, or in a ring for each vCPU, whose cost does not grow with the
memory's size. Either way :meth:`Memory.written` says them as bitmaps.

Source: Linux Documentation/virt/kvm/api.rst 4.8 KVM_GET_DIRTY_LOG, 4.35 KVM_SET_USER_MEMORY_REGION, 8.29
KVM_CAP_DIRTY_LOG_RING.
"""

from __future__ import annotations

import _thread
import mmap

from instar.cpu.kvm import uapi
from instar.errors import InternalBugError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Final

    from instar.cpu.kvm.kvm import KvmVm

PAGE: Final = 4096


class Slot:
    """A piece of RAM."""

    __slots__ = ("address", "gpa", "number", "read_only", "size")

    def __init__(self, number: int, gpa: int, size: int, address: int, *, read_only: bool) -> None:
        self.number = number
        self.gpa = gpa
        self.size = size
        self.address = address
        self.read_only = read_only

    @property
    def pages(self) -> int:
        """How many there are."""
        return self.size // PAGE


class Ring:
    """A vCPU's ring of written pages.

    Args:
        entries: ``struct kvm_dirty_gfn`` of the kernel, as many as were asked for.
    """

    __slots__ = ("_entries", "_next")

    def __init__(self, entries: mmap.mmap | bytearray) -> None:
        self._entries = entries
        self._next = 0

    def take(self) -> Iterator[tuple[int, int]]:
        """Return slot and page of each entry that the kernel has filled, and give the entries back to it."""
        size = uapi.DIRTY_GFN.size
        while True:
            at = self._next * size
            flags, slot, page = uapi.DIRTY_GFN.unpack_from(self._entries, at)
            if not flags & uapi.DIRTY_GFN_DIRTY:
                return
            uapi.U32.pack_into(self._entries, at, uapi.DIRTY_GFN_RESET)
            self._next = (self._next + 1) % (len(self._entries) // size)
            yield slot & 0xFFFF, page

    def close(self) -> None:
        """Give the mapping back."""
        if isinstance(self._entries, mmap.mmap):
            self._entries.close()


class Memory:
    """The slots of a VM.

    Args:
        vm: The VM.
        rings: Of its vCPUs, where written pages are noted in rings; () where they are in bitmaps.

    Attributes:
        slots: In the order of adding.
    """

    __slots__ = ("_found", "_lock", "_logging", "_rings", "_vm", "slots")

    def __init__(self, vm: KvmVm, rings: Sequence[Ring] = ()) -> None:
        self._vm = vm
        self._rings = rings
        self._lock = _thread.allocate_lock()
        self._found: dict[int, bytearray] = {}  # taken from the rings, by slot
        self._logging = False
        self.slots: list[Slot] = []

    def add(self, gpa: int, size: int, address: int, *, read_only: bool = False) -> None:
        """Show the guest a piece of the host's memory, in whole pages.

        Raises:
            HostError: The kernel refused it, as it does with one that overlaps.
        """
        if (gpa | size | address) % PAGE or not size:
            raise InternalBugError(f"{size} bytes at {gpa:#x} are no whole pages")
        slot = Slot(len(self.slots), gpa, size, address, read_only=read_only)
        self._set(slot)
        self.slots.append(slot)

    def log(self, *, on: bool) -> None:
        """Let the kernel note which pages are written, or not any more (HostError)."""
        self._logging = on
        for slot in self.slots:
            self._set(slot)

    def written(self) -> Iterator[tuple[Slot, bytearray]]:
        """Return for each slot a bit for each page that the guest has written since the last call."""
        if self._rings:
            self.collect()
        for slot in self.slots:
            if slot.read_only:
                continue
            if self._rings:
                with self._lock:
                    found = self._found.pop(slot.number, None)
                yield slot, found or _bitmap(slot)
            else:
                yield slot, self._vm.dirty_log(slot.number, slot.pages)

    def collect(self) -> None:
        """Empty the rings; from any thread, and in a vCPU's when its own is full."""
        with self._lock:
            for ring in self._rings:
                for number, page in ring.take():
                    if number not in self._found:
                        self._found[number] = _bitmap(self.slots[number])
                    self._found[number][page >> 3] |= 1 << (page & 7)
            self._vm.reset_dirty_rings()

    def close(self) -> None:
        """Give the rings back."""
        for ring in self._rings:
            ring.close()

    def _set(self, slot: Slot) -> None:
        flags = uapi.MEM_READONLY if slot.read_only else 0
        flags |= uapi.MEM_LOG_DIRTY_PAGES if self._logging and not slot.read_only else 0
        self._vm.set_memory(slot.number, slot.gpa, slot.size, slot.address, flags)


def _bitmap(slot: Slot) -> bytearray:
    """Return one as the kernel lays it out: whole words of 64 bits."""
    return bytearray((slot.pages + 63) // 64 * 8)
