"""Guest RAM as KVM sees it: slots of the host's memory, and which pages the guest has written.

Source: Linux Documentation/virt/kvm/api.rst 4.8 KVM_GET_DIRTY_LOG, 4.35 KVM_SET_USER_MEMORY_REGION.
"""

from __future__ import annotations

from instar.cpu.kvm import uapi
from instar.errors import InternalBugError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from instar.cpu.kvm.kvm import KvmVm

PAGE: Final = 4096
LOW_END: Final = 0xC0000000  # what is above stands for devices, up to HIGH_START
HIGH_START: Final = 1 << 32


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


class Memory:
    """The slots of a VM.

    Attributes:
        slots: In the order of adding.
    """

    __slots__ = ("_logging", "_vm", "slots")

    def __init__(self, vm: KvmVm) -> None:
        self._vm = vm
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

    def add_split(self, size: int, address: int) -> None:
        """Show RAM from 0 on with the hole for devices below 4 GiB, as a PC has it."""
        low = min(size, LOW_END)
        self.add(0, low, address)
        if size > low:
            self.add(HIGH_START, size - low, address + low)

    def log(self, *, on: bool) -> None:
        """Let the kernel note which pages are written, or not any more (HostError)."""
        self._logging = on
        for slot in self.slots:
            self._set(slot)

    def written(self) -> Iterator[tuple[Slot, bytearray]]:
        """Return for each slot a bit for each page that the guest has written since the last call."""
        for slot in self.slots:
            if not slot.read_only:
                yield slot, self._vm.dirty_log(slot.number, slot.pages)

    def _set(self, slot: Slot) -> None:
        flags = uapi.MEM_READONLY if slot.read_only else 0
        flags |= uapi.MEM_LOG_DIRTY_PAGES if self._logging and not slot.read_only else 0
        self._vm.set_memory(slot.number, slot.gpa, slot.size, slot.address, flags)
