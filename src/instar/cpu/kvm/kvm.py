"""KVM's descriptors as objects: the device, a virtual machine, a vCPU.

Each method is one request (or a few that belong together); it raises HostError, and then nothing was changed unless
it says otherwise. VM and vCPU descriptors belong to the address space that made them: after ``exec`` they answer EIO,
so all are closed by ``exec``. The device's own descriptor is good for another VM.

Source: Linux Documentation/virt/kvm/api.rst; the number in a docstring is its section.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from struct import Struct

from instar.cpu.kvm import _run, uapi
from instar.cpu.kvm.calls import filled, refused, with_data, with_value
from instar.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Final

DEVICE: Final = "/dev/kvm"
CpuidEntry = tuple[int, int, int, int, int, int, int]  # function, index, flags, eax, ebx, ecx, edx


class Kvm:
    """The device, to be asked what this host can do.

    Args:
        fd: An open descriptor of it that is taken over; -1: open it.
        inert: No vCPU of it will run, and nothing may be mapped to be written: a rehearsal.

    Raises:
        HostError: There is none, it may not be opened, or it speaks another version.
    """

    __slots__ = ("_known", "fd", "inert")

    def __init__(self, fd: int = -1, *, inert: bool = False) -> None:
        self.inert = inert
        if fd < 0:
            try:
                fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
            except OSError as e:
                raise HostError(f"{DEVICE} cannot be opened: {(e.strerror or '').lower()}") from e
        self.fd = fd
        self._known: dict[str, int] = {}
        version = with_value(fd, uapi.GET_API_VERSION)
        if version != uapi.API_VERSION:
            self.close()
            raise HostError(
                f"{DEVICE} speaks version {version} of its interface, {uapi.API_VERSION} is needed"
            )

    def close(self) -> None:
        """Give the descriptor back; VMs go on."""
        os.close(self.fd)

    def has(self, name: str) -> int:
        """Return what the kernel says of a capability of ``uapi.CAPABILITIES``: 0 if it lacks it (4.4)."""
        if name not in self._known:
            self._known[name] = with_value(
                self.fd, uapi.CHECK_EXTENSION, uapi.CAPABILITIES[name], name
            )
        return self._known[name]

    def run_size(self) -> int:
        """Return the bytes of the mapping that a vCPU shares with the kernel (4.5)."""
        return with_value(self.fd, uapi.GET_VCPU_MMAP_SIZE)

    def supported_cpuid(self) -> list[CpuidEntry]:
        """Return what KVM can show a guest of CPUID on this host (4.46)."""
        return get_cpuid(self.fd, uapi.GET_SUPPORTED_CPUID)

    def msr_indices(self) -> tuple[int, ...]:
        """Return the MSRs that KVM says are to be saved (4.3)."""
        return self._indices(uapi.GET_MSR_INDEX_LIST)

    def mce_capabilities(self) -> int:
        """Return MCG_CAP with all that KVM offers of machine checks (4.105), 0 if nothing."""
        if not self.has("MCE"):
            return 0
        raw = filled(self.fd, uapi.X86_GET_MCE_CAP_SUPPORTED, uapi.U64.size)
        return int(uapi.U64.unpack(raw)[0])

    def create_vm(self) -> KvmVm:
        """Make a virtual machine (4.2)."""
        while True:
            try:
                fd = _run.call(self.fd, uapi.CREATE_VM, 0)
            except OSError as e:
                if e.errno == errno.EINTR:  # a signal came while the kernel made its threads
                    continue
                raise refused(uapi.CREATE_VM, "", e) from e
            return KvmVm(self, fd)

    def _indices(self, request: int) -> tuple[int, ...]:
        count = 0
        while True:
            buffer = bytearray(uapi.MSR_LIST_HEAD.size + 4 * count)
            uapi.MSR_LIST_HEAD.pack_into(buffer, 0, count)
            try:
                fcntl.ioctl(self.fd, request, buffer)
            except OSError as e:
                (found,) = uapi.MSR_LIST_HEAD.unpack_from(buffer)
                if e.errno != errno.E2BIG or found <= count:
                    raise refused(request, "", e) from e
                count = int(found)  # the kernel says how many there are
                continue
            (found,) = uapi.MSR_LIST_HEAD.unpack_from(buffer)
            return Struct(f"={found}I").unpack_from(buffer, uapi.MSR_LIST_HEAD.size)


class KvmVm:
    """One virtual machine: memory, interrupt controllers, clock."""

    __slots__ = ("fd", "kvm")

    def __init__(self, kvm: Kvm, fd: int) -> None:
        self.kvm = kvm
        self.fd = fd

    def close(self) -> None:
        """Give the descriptor back; the kernel ends the VM with the last vCPU's."""
        os.close(self.fd)

    def has(self, name: str) -> int:
        """Return what the kernel says of a capability for this VM."""
        return with_value(self.fd, uapi.CHECK_EXTENSION, uapi.CAPABILITIES[name], name)

    def create_vcpu(self, number: int) -> KvmVcpu:
        """Make the vCPU whose APIC id is ``number`` (4.7); interrupt controllers exist before it."""
        fd = with_value(self.fd, uapi.CREATE_VCPU, number)
        return KvmVcpu(self.kvm, fd, number)

    def set_memory(self, slot: int, gpa: int, size: int, address: int, flags: int = 0) -> None:
        """Show ``size`` bytes at the host's ``address`` as guest memory; size 0 takes the slot away (4.35)."""
        data = uapi.MEMORY_REGION.pack(slot, flags, gpa, size, address)
        with_data(
            self.fd, uapi.SET_USER_MEMORY_REGION, data, f"slot {slot}, {size} bytes at {gpa:#x}"
        )

    def set_tss_address(self, gpa: int) -> None:
        """Give KVM three pages outside RAM that some Intel hosts need (4.36)."""
        with_value(self.fd, uapi.SET_TSS_ADDR, gpa)

    def set_identity_map_address(self, gpa: int) -> None:
        """Give KVM a page outside RAM that some Intel hosts need (4.40); before the first vCPU."""
        with_data(self.fd, uapi.SET_IDENTITY_MAP_ADDR, uapi.U64.pack(gpa), f"{gpa:#x}")

    def enable(self, name: str, *arguments: int) -> None:
        """Enable a capability of the VM (4.37)."""
        values = (*arguments, 0, 0, 0, 0)[:4]
        data = uapi.ENABLE_CAP_DATA.pack(uapi.CAPABILITIES[name], 0, *values)
        with_data(self.fd, uapi.ENABLE_CAP, data, name)

    def create_irqchip(self) -> None:
        """Put PICs, IOAPIC and LAPICs into the kernel (4.24)."""
        with_value(self.fd, uapi.CREATE_IRQCHIP)

    def split_irqchip(self, pins: int) -> None:
        """Put only the LAPICs into the kernel and keep ``pins`` routes for an IOAPIC of ours (7.5)."""
        self.enable("SPLIT_IRQCHIP", pins)

    def create_pit(self) -> None:
        """Put an i8254 into the kernel whose speaker port is a dummy (4.71)."""
        with_data(self.fd, uapi.CREATE_PIT2, uapi.PIT_CONFIG.pack(uapi.PIT_SPEAKER_DUMMY))

    def set_line(self, gsi: int, level: bool) -> None:  # noqa: FBT001 - the shape of a wire
        """Drive an interrupt line (4.25)."""
        with_data(
            self.fd, uapi.IRQ_LINE, uapi.IRQ_LEVEL.pack(gsi, level), f"line {gsi} to {level:d}"
        )

    def signal_msi(self, address: int, data: int) -> int:
        """Send a message signalled interrupt (4.70); return how many LAPICs took it.

        Where no LAPIC is meant, which a guest can bring about, the kernel's answer is -1, and that looks like EPERM.
        """
        message = uapi.MSI.pack(address & 0xFFFFFFFF, address >> 32, data, 0, 0)
        try:
            return int(fcntl.ioctl(self.fd, uapi.SIGNAL_MSI, bytearray(message)))
        except OSError as e:
            if e.errno == errno.EPERM:
                return 0
            raise refused(uapi.SIGNAL_MSI, f"{address:#x}, {data:#x}", e) from e

    def set_routes(self, entries: Sequence[bytes]) -> None:
        """Replace all routes from lines to interrupt controllers and messages (4.52): :mod:`routes` packs them."""
        head = uapi.ROUTING_HEAD.pack(len(entries), 0)
        with_data(
            self.fd, uapi.SET_GSI_ROUTING, head + b"".join(entries), f"{len(entries)} routes"
        )

    def irqfd(self, gsi: int, fd: int, resample_fd: int = -1) -> None:
        """Let an eventfd raise a line; the other one tells when the guest has acknowledged it (4.75)."""
        flags = uapi.IRQFD_RESAMPLE if resample_fd >= 0 else 0
        data = uapi.IRQFD.pack(fd, gsi, flags, resample_fd)
        with_data(self.fd, uapi.IRQFD_REQUEST, data, f"line {gsi}")

    def irqfd_off(self, gsi: int, fd: int) -> None:
        """Take the eventfd off the line; what it has said before is delivered."""
        data = uapi.IRQFD.pack(fd, gsi, uapi.IRQFD_DEASSIGN, -1)
        with_data(self.fd, uapi.IRQFD_REQUEST, data, f"line {gsi}, off")

    def ioeventfd(
        self,
        address: int,
        size: int,
        fd: int,
        *,
        match: int | None = None,
        port: bool = False,
        on: bool = True,
    ) -> None:
        """Let a guest's write signal an eventfd instead of an exit (4.59).

        Args:
            address: Guest physical, or a port.
            size: Bytes of the write: 1, 2, 4 or 8; 0: any.
            fd: The eventfd.
            match: Only writes of this value; None: all.
            port: It is a port.
            on: False takes it away; all the rest as it was.
        """
        flags = 0 if match is None else uapi.IOEVENTFD_DATAMATCH
        flags |= uapi.IOEVENTFD_PIO if port else 0
        flags |= 0 if on else uapi.IOEVENTFD_DEASSIGN
        data = uapi.IOEVENTFD.pack(match or 0, address, size, fd, flags)
        with_data(self.fd, uapi.IOEVENTFD_REQUEST, data, f"{size} bytes at {address:#x}")

    def irqchip(self, chip: int) -> bytes:
        """Return a chip's structure, 512 bytes (4.26)."""
        raw = with_data(self.fd, uapi.GET_IRQCHIP, uapi.IRQCHIP.pack(chip, 0, b""), f"chip {chip}")
        return bytes(raw[8:])

    def set_irqchip(self, chip: int, data: bytes) -> None:
        """Set a chip's structure (4.27)."""
        with_data(self.fd, uapi.SET_IRQCHIP, uapi.IRQCHIP.pack(chip, 0, data), f"chip {chip}")

    def pit(self) -> bytes:
        """Return the i8254's structure (4.72)."""
        return filled(self.fd, uapi.GET_PIT2, uapi.PIT_STATE2.size)

    def set_pit(self, data: bytes) -> None:
        """Set the i8254's structure (4.73)."""
        with_data(self.fd, uapi.SET_PIT2, data)

    def clock(self) -> tuple[int, int, int, int]:
        """Return kvmclock in ns, its flags, the host's wall clock and TSC; flags say which are valid (4.29)."""
        raw = filled(self.fd, uapi.GET_CLOCK, uapi.CLOCK_DATA.size)
        return uapi.CLOCK_DATA.unpack(raw)

    def set_clock(self, ns: int, realtime_ns: int = 0) -> None:
        """Set kvmclock; with the host's wall clock of then, what has passed since is added (4.30)."""
        flags = uapi.CLOCK_REALTIME if realtime_ns else 0
        data = uapi.CLOCK_DATA.pack(ns, flags, realtime_ns, 0)
        with_data(self.fd, uapi.SET_CLOCK, data, f"{ns} ns")

    def dirty_log(self, slot: int, pages: int) -> bytearray:
        """Return a bit for each page that the guest has written since the last call (4.8)."""
        bitmap = bytearray((pages + 63) // 64 * 8)
        data = uapi.DIRTY_LOG.pack(slot, 0, _run.address_of(bitmap))
        with_data(self.fd, uapi.GET_DIRTY_LOG, data, f"slot {slot}")
        return bitmap

    def clear_dirty_log(self, slot: int, first_page: int, pages: int, bitmap: bytearray) -> None:
        """Watch the pages of ``bitmap`` again, with MANUAL_DIRTY_LOG_PROTECT2 (4.117)."""
        address = _run.address_of(bitmap)
        data = uapi.CLEAR_DIRTY_LOG_DATA.pack(slot, pages, first_page, address)
        with_data(self.fd, uapi.CLEAR_DIRTY_LOG, data, f"slot {slot}")

    def reset_dirty_rings(self) -> int:
        """Watch again the pages that were collected from the rings; return how many (8.29)."""
        return with_value(self.fd, uapi.RESET_DIRTY_RINGS)


class KvmVcpu:
    """One vCPU and what it shares with the kernel.

    Attributes:
        shared: ``struct kvm_run``; its layout is in :mod:`uapi`.
    """

    __slots__ = ("fd", "kvm", "number", "shared")

    def __init__(self, kvm: Kvm, fd: int, number: int) -> None:
        self.kvm = kvm
        self.fd = fd
        self.number = number
        kind = mmap.MAP_PRIVATE if kvm.inert else mmap.MAP_SHARED
        self.shared = mmap.mmap(fd, kvm.run_size(), kind)

    def close(self) -> None:
        """Give the descriptor and the mapping back."""
        self.shared.close()
        os.close(self.fd)

    def get(self, request: int, size: int) -> bytes:
        """Return a structure of state."""
        return filled(self.fd, request, size, f"vCPU {self.number}")

    def set(self, request: int, data: bytes) -> None:
        """Set a structure of state."""
        with_data(self.fd, request, data, f"vCPU {self.number}")

    def set_cpuid(self, entries: Iterable[CpuidEntry]) -> None:
        """Say what the guest sees of CPUID (4.64); before all other state, never after it has run otherwise."""
        packed = [uapi.CPUID_ENTRY.pack(*entry) for entry in entries]
        head = uapi.CPUID_HEAD.pack(len(packed), 0)
        self.set(uapi.SET_CPUID2, head + b"".join(packed))

    def setup_mce(self, capabilities: int) -> None:
        """Say how many banks of machine checks there are (4.104); before they are set."""
        self.set(uapi.X86_SETUP_MCE, uapi.U64.pack(capabilities))

    def msrs(self, indices: Sequence[int]) -> list[int]:
        """Return the values of the first MSRs of ``indices`` up to one that cannot be read (4.18)."""
        request = b"".join(uapi.MSR_ENTRY.pack(index, 0, 0) for index in indices)
        buffer = bytearray(uapi.MSRS_HEAD.pack(len(indices), 0) + request)
        try:
            read = fcntl.ioctl(self.fd, uapi.GET_MSRS, buffer)
        except OSError as e:
            raise refused(uapi.GET_MSRS, f"vCPU {self.number}", e) from e
        found = uapi.MSR_ENTRY.iter_unpack(memoryview(buffer)[uapi.MSRS_HEAD.size :])
        return [value for _, (_, _, value) in zip(range(read), found, strict=False)]

    def set_msrs(self, values: Sequence[tuple[int, int]]) -> int:
        """Set MSRs in order up to one that cannot be set; return how many were (4.19)."""
        request = b"".join(uapi.MSR_ENTRY.pack(index, 0, value) for index, value in values)
        buffer = bytearray(uapi.MSRS_HEAD.pack(len(values), 0) + request)
        try:
            return int(fcntl.ioctl(self.fd, uapi.SET_MSRS, buffer))
        except OSError as e:
            raise refused(uapi.SET_MSRS, f"vCPU {self.number}", e) from e

    def nested_state(self, most: int) -> bytes:
        """Return what a hypervisor in the guest has its vCPU do (4.114), of at most ``most`` bytes."""
        buffer = bytearray(most)
        uapi.NESTED_HEAD.pack_into(buffer, 0, 0, 0, most)
        raw = with_data(self.fd, uapi.GET_NESTED_STATE, buffer, f"vCPU {self.number}")
        _, _, size = uapi.NESTED_HEAD.unpack_from(raw)
        return bytes(raw[:size])

    def translate(self, va: int) -> int:
        """Return the guest physical address of ``va`` as the vCPU's page tables have it, -1 if none (4.15)."""
        raw = with_data(self.fd, uapi.TRANSLATE, uapi.TRANSLATION.pack(va, 0, 0, 0, 0), f"{va:#x}")
        _, gpa, valid, _, _ = uapi.TRANSLATION.unpack(raw)
        return int(gpa) if valid else -1

    def tsc_khz(self) -> int:
        """Return the frequency of its TSC, 0 if it is not known (4.56)."""
        return with_value(self.fd, uapi.GET_TSC_KHZ) if self.kvm.has("GET_TSC_KHZ") else 0

    def set_tsc_khz(self, khz: int) -> None:
        """Set the frequency of its TSC, by scaling where the host's is another (4.55)."""
        with_value(self.fd, uapi.SET_TSC_KHZ, khz, f"{khz} kHz")

    def has_tsc_offset(self) -> bool:
        """Whether :meth:`tsc_offset` can be had (Documentation/virt/kvm/devices/vcpu.rst 4.1)."""
        data = uapi.DEVICE_ATTR.pack(0, uapi.VCPU_TSC_CTRL, uapi.VCPU_TSC_OFFSET, 0)
        try:
            fcntl.ioctl(self.fd, uapi.HAS_DEVICE_ATTR, bytearray(data))
        except OSError:
            return False
        return True

    def tsc_offset(self) -> int:
        """Return what the guest's TSC has more than the host's, modulo 2**64."""
        return int(uapi.U64.unpack(self._tsc_offset(uapi.GET_DEVICE_ATTR, 0))[0])

    def set_tsc_offset(self, offset: int) -> None:
        """Set it; the other vCPUs' are to be set alike."""
        self._tsc_offset(uapi.SET_DEVICE_ATTR, offset)

    def clock_was_stopped(self) -> bool:
        """Tell a guest that it did not run, so that its watchdogs wait (4.70); False: it has no kvmclock."""
        try:
            _run.call(self.fd, uapi.KVMCLOCK_CTRL, 0)
        except OSError as e:
            if e.errno == errno.EINVAL:
                return False
            raise refused(uapi.KVMCLOCK_CTRL, f"vCPU {self.number}", e) from e
        return True

    def _tsc_offset(self, request: int, offset: int) -> bytearray:
        value = bytearray(uapi.U64.pack(offset & (1 << 64) - 1))
        address = _run.address_of(value)
        data = uapi.DEVICE_ATTR.pack(0, uapi.VCPU_TSC_CTRL, uapi.VCPU_TSC_OFFSET, address)
        with_data(self.fd, request, data, "the TSC offset")
        return value


def get_cpuid(fd: int, request: int) -> list[CpuidEntry]:
    """Return entries that the kernel lists; it says E2BIG as long as there is too little room."""
    room = 64
    while True:
        buffer = bytearray(uapi.CPUID_HEAD.size + room * uapi.CPUID_ENTRY.size)
        uapi.CPUID_HEAD.pack_into(buffer, 0, room, 0)
        try:
            fcntl.ioctl(fd, request, buffer)
        except OSError as e:
            if e.errno != errno.E2BIG or room >= uapi.MAX_CPUID_ENTRIES:
                raise refused(request, f"{room} entries", e) from e
            room *= 2
            continue
        count, _ = uapi.CPUID_HEAD.unpack_from(buffer)
        end = uapi.CPUID_HEAD.size + count * uapi.CPUID_ENTRY.size
        entries = memoryview(buffer)[uapi.CPUID_HEAD.size : end]
        return list(uapi.CPUID_ENTRY.iter_unpack(entries))
