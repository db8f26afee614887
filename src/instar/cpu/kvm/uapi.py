"""KVM's interface for x86-64: numbers, layouts and exit reasons by the kernel's names, nothing else.

Sizes are in the numbers of the requests, so a layout that is wrong is refused by the kernel as an unknown request.
Structures that end in an array say the size of their head; the array is the caller's.

Source: Linux include/uapi/linux/kvm.h, arch/x86/include/uapi/asm/kvm.h, include/uapi/asm-generic/ioctl.h and
Documentation/virt/kvm/api.rst, of Linux 6.12.
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_KVMIO: Final = 0xAE
_WRITE: Final = 1  # seen from the caller: the kernel reads the structure
_READ: Final = 2


def _request(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | _KVMIO << 8 | number


def io(number: int) -> int:
    """Return the request that takes no structure (``_IO``)."""
    return _request(0, number, 0)


def ior(number: int, size: int) -> int:
    """Return the request that fills a structure of ``size`` bytes (``_IOR``)."""
    return _request(_READ, number, size)


def iow(number: int, size: int) -> int:
    """Return the request that takes a structure of ``size`` bytes (``_IOW``)."""
    return _request(_WRITE, number, size)


def iowr(number: int, size: int) -> int:
    """Return the request that takes and fills a structure of ``size`` bytes (``_IOWR``)."""
    return _request(_READ | _WRITE, number, size)


API_VERSION: Final = 12
U32: Final = Struct("=I")
U64: Final = Struct("=Q")

# Layouts. What is reserved is padding: packed as zeros, not unpacked.
MEMORY_REGION: Final = Struct(
    "=IIQQQ"
)  # slot, flags, guest_phys_addr, memory_size, userspace_addr
IRQ_LEVEL: Final = Struct("=II")  # irq, level
IRQCHIP: Final = Struct("=II512s")  # chip_id, pad, chip
IRQCHIP_SIZE: Final = 512  # of the chip
PIT_CONFIG: Final = Struct("=I60x")  # flags
PIT_STATE2: Final = Struct("=112s")  # three channels, flags
PIT_CHANNELS: Final = 3
PIT_CHANNEL_SIZE: Final = 24  # bytes; the last of them are when its counter was loaded
PIT_TIME_SIZE: Final = 8
CLOCK_DATA: Final = Struct("=QI4xQQ16x")  # clock, flags, realtime, host_tsc
IRQFD: Final = Struct("=IIIi16x")  # fd, gsi, flags, resamplefd
IOEVENTFD: Final = Struct("=QQIiI36x")  # datamatch, addr, len, fd, flags
MSI: Final = Struct("=IIIIi12x")  # address_lo, address_hi, data, flags, devid
ROUTING_HEAD: Final = Struct("=II")  # nr, flags
ROUTING_IRQCHIP: Final = Struct("=IIIIII24x")  # gsi, type, flags, pad, irqchip, pin
ROUTING_MSI: Final = Struct(
    "=IIIIIIII16x"
)  # gsi, type, flags, pad, address_lo, address_hi, data, devid
ENABLE_CAP_DATA: Final = Struct("=II4Q64x")  # cap, flags, args
DEVICE_ATTR: Final = Struct("=IIQQ")  # flags, group, attr, addr
DIRTY_LOG: Final = Struct("=IIQ")  # slot, pad, dirty_bitmap
CLEAR_DIRTY_LOG_DATA: Final = Struct("=IIQQ")  # slot, num_pages, first_page, dirty_bitmap
DIRTY_GFN: Final = Struct("=IIQ")  # flags, slot (address space in the upper half), offset

REGS: Final = Struct("=18Q")
REG_NAMES: Final = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags"),
)
SEGMENT: Final = Struct(
    "=QIH10B"
)  # base, limit, selector, type, present, dpl, db, s, l, g, avl, unusable, pad
SEGMENT_NAMES: Final = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
DTABLE: Final = Struct("=QH6x")  # base, limit
DTABLES_AT: Final = 8 * SEGMENT.size
CONTROL: Final = Struct("=7Q")  # cr0, cr2, cr3, cr4, cr8, efer, apic_base
CONTROL_NAMES: Final = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")
CONTROL_AT: Final = DTABLES_AT + 2 * DTABLE.size
SREGS_TAIL_AT: Final = CONTROL_AT + CONTROL.size  # sregs: interrupt_bitmap; sregs2: flags, pdptrs
SREGS_SIZE: Final = SREGS_TAIL_AT + 32
SREGS2_SIZE: Final = SREGS_TAIL_AT + 40
FPU_SIZE: Final = 416
LAPIC_SIZE: Final = 0x400
LAPIC_TIMER_LEFT_AT: Final = 0x390  # current count, u32
DEBUGREGS_SIZE: Final = 128
EVENTS_SIZE: Final = 64
EVENTS_FLAGS_AT: Final = 20
MP_STATE: Final = Struct("=I")
XSAVE_SIZE: Final = 4096  # KVM_CAP_XSAVE2 says more where there is more
XCRS_SIZE: Final = 8 + 16 * 16 + 128
XCRS_HEAD: Final = Struct("=II")  # nr_xcrs, flags
XCR: Final = Struct("=IIQ")  # xcr, reserved, value
MAX_XCRS: Final = 16
TRANSLATION: Final = Struct(
    "=QQBBB5x"
)  # linear_address, physical_address, valid, writeable, usermode
CPUID_HEAD: Final = Struct("=II")  # nent, padding
CPUID_ENTRY: Final = Struct("=7I12x")  # function, index, flags, eax, ebx, ecx, edx
MSRS_HEAD: Final = Struct("=II")  # nmsrs, pad
MSR_ENTRY: Final = Struct("=IIQ")  # index, reserved, data
MSR_LIST_HEAD: Final = Struct("=I")  # nmsrs
NESTED_HEAD: Final = Struct("=HHI120x")  # flags, format, size
NESTED_LEAST: Final = NESTED_HEAD.size
MAX_MSRS_AT_ONCE: Final = 255  # the kernel takes fewer than MAX_IO_MSRS, 256
MAX_CPUID_ENTRIES: Final = 256  # KVM_MAX_CPUID_ENTRIES

# struct kvm_run
RUN_IMMEDIATE_EXIT: Final = 1  # offset of the byte
RUN_EXIT: Final = Struct("=IBBH")  # exit_reason, ready_for_interrupt_injection, if_flag, flags
RUN_EXIT_AT: Final = 8
RUN_UNION_AT: Final = 32
RUN_IO: Final = Struct("=BBHIQ")  # direction, size, port, count, data_offset
RUN_MMIO: Final = Struct("=Q8sIB")  # phys_addr, data, len, is_write
RUN_MMIO_DATA_AT: Final = RUN_UNION_AT + 8
RUN_FAIL_ENTRY: Final = Struct("=QI")  # hardware_entry_failure_reason, cpu
RUN_INTERNAL: Final = Struct("=II")  # suberror, ndata; then data
RUN_SYSTEM_EVENT: Final = Struct("=IIQ")  # type, ndata, data[0]
RUN_MSR: Final = Struct("=B7xIIQ")  # error, reason, index, data
RUN_SIZE: Final = 2352  # of the structure; the mapping has more pages

# Requests of /dev/kvm.
GET_API_VERSION: Final = io(0x00)
CREATE_VM: Final = io(0x01)
GET_MSR_INDEX_LIST: Final = iowr(0x02, MSR_LIST_HEAD.size)
CHECK_EXTENSION: Final = io(0x03)
GET_VCPU_MMAP_SIZE: Final = io(0x04)
GET_SUPPORTED_CPUID: Final = iowr(0x05, CPUID_HEAD.size)
GET_MSR_FEATURE_INDEX_LIST: Final = iowr(0x0A, MSR_LIST_HEAD.size)

# Requests of a VM.
CREATE_VCPU: Final = io(0x41)
GET_DIRTY_LOG: Final = iow(0x42, DIRTY_LOG.size)
SET_USER_MEMORY_REGION: Final = iow(0x46, MEMORY_REGION.size)
SET_TSS_ADDR: Final = io(0x47)
SET_IDENTITY_MAP_ADDR: Final = iow(0x48, 8)
CREATE_IRQCHIP: Final = io(0x60)
IRQ_LINE: Final = iow(0x61, IRQ_LEVEL.size)
GET_IRQCHIP: Final = iowr(0x62, IRQCHIP.size)
SET_IRQCHIP: Final = ior(0x63, IRQCHIP.size)
SET_GSI_ROUTING: Final = iow(0x6A, ROUTING_HEAD.size)
IRQFD_REQUEST: Final = iow(0x76, IRQFD.size)
CREATE_PIT2: Final = iow(0x77, PIT_CONFIG.size)
SET_BOOT_CPU_ID: Final = io(0x78)
IOEVENTFD_REQUEST: Final = iow(0x79, IOEVENTFD.size)
SET_CLOCK: Final = iow(0x7B, CLOCK_DATA.size)
GET_CLOCK: Final = ior(0x7C, CLOCK_DATA.size)
GET_PIT2: Final = ior(0x9F, PIT_STATE2.size)
SET_PIT2: Final = iow(0xA0, PIT_STATE2.size)
SIGNAL_MSI: Final = iow(0xA5, MSI.size)
CLEAR_DIRTY_LOG: Final = iowr(0xC0, CLEAR_DIRTY_LOG_DATA.size)
RESET_DIRTY_RINGS: Final = io(0xC7)

# Requests of a vCPU; those of TSC and capabilities are of a VM, too.
RUN: Final = io(0x80)
GET_REGS: Final = ior(0x81, REGS.size)
SET_REGS: Final = iow(0x82, REGS.size)
GET_SREGS: Final = ior(0x83, SREGS_SIZE)
SET_SREGS: Final = iow(0x84, SREGS_SIZE)
TRANSLATE: Final = iowr(0x85, TRANSLATION.size)
INTERRUPT: Final = iow(0x86, 4)
GET_MSRS: Final = iowr(0x88, MSRS_HEAD.size)
SET_MSRS: Final = iow(0x89, MSRS_HEAD.size)
GET_FPU: Final = ior(0x8C, FPU_SIZE)
SET_FPU: Final = iow(0x8D, FPU_SIZE)
GET_LAPIC: Final = ior(0x8E, LAPIC_SIZE)
SET_LAPIC: Final = iow(0x8F, LAPIC_SIZE)
SET_CPUID2: Final = iow(0x90, CPUID_HEAD.size)
GET_CPUID2: Final = iowr(0x91, CPUID_HEAD.size)
GET_MP_STATE: Final = ior(0x98, MP_STATE.size)
SET_MP_STATE: Final = iow(0x99, MP_STATE.size)
NMI: Final = io(0x9A)
X86_SETUP_MCE: Final = iow(0x9C, 8)
X86_GET_MCE_CAP_SUPPORTED: Final = ior(0x9D, 8)
GET_VCPU_EVENTS: Final = ior(0x9F, EVENTS_SIZE)
SET_VCPU_EVENTS: Final = iow(0xA0, EVENTS_SIZE)
GET_DEBUGREGS: Final = ior(0xA1, DEBUGREGS_SIZE)
SET_DEBUGREGS: Final = iow(0xA2, DEBUGREGS_SIZE)
SET_TSC_KHZ: Final = io(0xA2)
GET_TSC_KHZ: Final = io(0xA3)
ENABLE_CAP: Final = iow(0xA3, ENABLE_CAP_DATA.size)
GET_XSAVE: Final = ior(0xA4, XSAVE_SIZE)
SET_XSAVE: Final = iow(0xA5, XSAVE_SIZE)
GET_XCRS: Final = ior(0xA6, XCRS_SIZE)
SET_XCRS: Final = iow(0xA7, XCRS_SIZE)
KVMCLOCK_CTRL: Final = io(0xAD)
GET_NESTED_STATE: Final = iowr(0xBE, NESTED_HEAD.size)
SET_NESTED_STATE: Final = iow(0xBF, NESTED_HEAD.size)
GET_SREGS2: Final = ior(0xCC, SREGS2_SIZE)
SET_SREGS2: Final = iow(0xCD, SREGS2_SIZE)
GET_XSAVE2: Final = ior(0xCF, XSAVE_SIZE)
SET_DEVICE_ATTR: Final = iow(0xE1, DEVICE_ATTR.size)
GET_DEVICE_ATTR: Final = iow(0xE2, DEVICE_ATTR.size)
HAS_DEVICE_ATTR: Final = iow(0xE3, DEVICE_ATTR.size)

# Capabilities that are asked for, by the kernel's names without KVM_CAP_.
CAPABILITIES: Final = {
    "IRQCHIP": 0,
    "USER_MEMORY": 3,
    "SET_TSS_ADDR": 4,
    "EXT_CPUID": 7,
    "NR_VCPUS": 9,
    "NR_MEMSLOTS": 10,
    "MP_STATE": 14,
    "IRQ_ROUTING": 25,
    "MCE": 31,
    "IRQFD": 32,
    "PIT2": 33,
    "SET_BOOT_CPU_ID": 34,
    "PIT_STATE2": 35,
    "IOEVENTFD": 36,
    "SET_IDENTITY_MAP_ADDR": 37,
    "ADJUST_CLOCK": 39,
    "VCPU_EVENTS": 41,
    "DEBUGREGS": 50,
    "ENABLE_CAP": 54,
    "XSAVE": 55,
    "XCRS": 56,
    "TSC_CONTROL": 60,
    "GET_TSC_KHZ": 61,
    "MAX_VCPUS": 66,
    "TSC_DEADLINE_TIMER": 72,
    "KVMCLOCK_CTRL": 76,
    "SIGNAL_MSI": 77,
    "IRQFD_RESAMPLE": 82,
    "ENABLE_CAP_VM": 98,
    "X86_SMM": 117,
    "SPLIT_IRQCHIP": 121,
    "IOEVENTFD_ANY_LENGTH": 122,
    "VCPU_ATTRIBUTES": 127,
    "MAX_VCPU_ID": 128,
    "X2APIC_API": 129,
    "IMMEDIATE_EXIT": 136,
    "GET_MSR_FEATURES": 153,
    "NESTED_STATE": 157,
    "EXCEPTION_PAYLOAD": 164,
    "MANUAL_DIRTY_LOG_PROTECT2": 168,
    "DIRTY_LOG_RING": 192,
    "SREGS2": 200,
    "XSAVE2": 208,
    "VM_TSC_CONTROL": 214,
    "X86_TRIPLE_FAULT_EVENT": 218,
    "DIRTY_LOG_RING_ACQ_REL": 223,
}

# Flags.
MEM_LOG_DIRTY_PAGES: Final = 1
MEM_READONLY: Final = 2
IRQFD_DEASSIGN: Final = 1
IRQFD_RESAMPLE: Final = 2
IOEVENTFD_DATAMATCH: Final = 1
IOEVENTFD_PIO: Final = 2
IOEVENTFD_DEASSIGN: Final = 4
CLOCK_TSC_STABLE: Final = 2
CLOCK_REALTIME: Final = 4
CLOCK_HOST_TSC: Final = 8
ROUTE_IRQCHIP: Final = 1
ROUTE_MSI: Final = 2
IRQCHIP_PIC_MASTER: Final = 0
IRQCHIP_PIC_SLAVE: Final = 1
IRQCHIP_IOAPIC: Final = 2
IOAPIC_PINS: Final = 24
PIT_SPEAKER_DUMMY: Final = 1
X2APIC_USE_32BIT_IDS: Final = 1
X2APIC_DISABLE_BROADCAST_QUIRK: Final = 2
DIRTY_LOG_MANUAL_PROTECT: Final = 1
DIRTY_LOG_INITIALLY_SET: Final = 2
DIRTY_LOG_PAGE_OFFSET: Final = 64  # pages into the mapping of a vCPU
DIRTY_GFN_DIRTY: Final = 1
DIRTY_GFN_RESET: Final = 2
CPUID_SIGNIFICANT_INDEX: Final = 1
SREGS2_PDPTRS_VALID: Final = 1
NESTED_GUEST_MODE: Final = 1
VCPU_TSC_CTRL: Final = 0  # group of device attributes
VCPU_TSC_OFFSET: Final = 0
EVENT_NMI_PENDING: Final = 1
EVENT_SIPI_VECTOR: Final = 2
EVENT_SHADOW: Final = 4
EVENT_SMM: Final = 8
EVENT_PAYLOAD: Final = 16
EVENT_TRIPLE_FAULT: Final = 32

# Exit reasons.
EXIT_UNKNOWN: Final = 0
EXIT_EXCEPTION: Final = 1
EXIT_IO: Final = 2
EXIT_HYPERCALL: Final = 3
EXIT_DEBUG: Final = 4
EXIT_HLT: Final = 5
EXIT_MMIO: Final = 6
EXIT_IRQ_WINDOW_OPEN: Final = 7
EXIT_SHUTDOWN: Final = 8
EXIT_FAIL_ENTRY: Final = 9
EXIT_INTR: Final = 10
EXIT_SET_TPR: Final = 11
EXIT_TPR_ACCESS: Final = 12
EXIT_NMI: Final = 16
EXIT_INTERNAL_ERROR: Final = 17
EXIT_SYSTEM_EVENT: Final = 24
EXIT_IOAPIC_EOI: Final = 26
EXIT_X86_RDMSR: Final = 29
EXIT_X86_WRMSR: Final = 30
EXIT_DIRTY_RING_FULL: Final = 31
EXIT_X86_BUS_LOCK: Final = 33
EXIT_NOTIFY: Final = 37
EXIT_MEMORY_FAULT: Final = 39
EXIT_NAMES: Final = {value: name for name, value in globals().items() if name.startswith("EXIT_")}
INTERNAL_ERRORS: Final = {
    1: "an instruction could not be emulated",
    2: "exceptions came at once",
    3: "an exit came while an event was delivered",
    4: "an exit came that nobody expects",
}
SYSTEM_EVENT_SHUTDOWN: Final = 1
SYSTEM_EVENT_RESET: Final = 2
SYSTEM_EVENT_CRASH: Final = 3

MP_RUNNABLE: Final = 0
MP_UNINITIALIZED: Final = 1
MP_INIT_RECEIVED: Final = 2
MP_HALTED: Final = 3
MP_SIPI_RECEIVED: Final = 4
MP_LAST: Final = 10  # KVM_MP_STATE_SUSPENDED
