"""A VM with its vCPUs, in the order that the kernel wants: controllers, then vCPUs, then what they are."""

from __future__ import annotations

import mmap

from instar.cpu.kvm import uapi
from instar.cpu.kvm.cpuid import for_vcpu
from instar.cpu.kvm.memory import Ring
from instar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from instar.cpu.kvm.cpuid import CpuModel
    from instar.cpu.kvm.kvm import CpuidEntry, Kvm, KvmVcpu, KvmVm

MOST_VCPUS: Final = 254  # APIC ids of 8 bits; 255 is everybody
_TSS: Final = 0xFFFBD000  # three pages for some Intel hosts, as far up as nothing else is
_IDENTITY_MAP: Final = 0xFFFBC000
_MCE_BANKS: Final = 10
_MCG_CTL_P: Final = 1 << 8
_MCG_SER_P: Final = 1 << 24
_NEEDED: Final = (
    *("USER_MEMORY", "IRQCHIP", "IMMEDIATE_EXIT", "MP_STATE"),
    *("VCPU_EVENTS", "DEBUGREGS", "XSAVE", "IOEVENTFD"),
)


class KvmOptions:
    """What the command line says of the vCPUs.

    Args:
        count: vCPUs, 1 to 254.
        cpu: Their model.
        split: The IOAPIC is not in the kernel.
        pit: There is an i8254 in the kernel; never with a split interrupt controller.
        pause_shown: kvmclock and TSC show the guest how long it did not run.
        ring: Written pages are noted in rings of so many entries, a power of two; 0: in bitmaps.

    Raises:
        ConfigError: These do not go together.
    """

    __slots__ = ("count", "cpu", "pause_shown", "pit", "ring", "split")

    def __init__(
        self,
        *,
        count: int,
        cpu: CpuModel,
        split: bool = False,
        pit: bool = False,
        pause_shown: bool = False,
        ring: int = 0,
    ) -> None:
        if not 1 <= count <= MOST_VCPUS:
            raise ConfigError(f"-smp {count}: KVM runs 1 to {MOST_VCPUS} vCPUs here")
        if split and pit:
            raise ConfigError("an i8254 in the kernel needs the IOAPIC there, too")
        self.count = count
        self.cpu = cpu
        self.ring = ring
        self.split = split
        self.pit = pit
        self.pause_shown = pause_shown


class Made:
    """What :func:`make` made.

    Attributes:
        vm: With its interrupt controllers, without memory.
        vcpus: As after power-on.
        cpuid: What each sees.
        supported: What KVM could show them.
        mce: MCG_CAP of each.
    """

    __slots__ = ("cpuid", "mce", "supported", "vcpus", "vm")

    def __init__(self, vm: KvmVm, supported: Sequence[CpuidEntry], mce: int) -> None:
        self.vm = vm
        self.supported = supported
        self.mce = mce
        self.vcpus: list[KvmVcpu] = []
        self.cpuid: list[list[CpuidEntry]] = []

    def close(self) -> None:
        """Give everything back."""
        for vcpu in self.vcpus:
            vcpu.close()
        self.vm.close()


def make(kvm: Kvm, options: KvmOptions) -> Made:
    """Make a VM and its vCPUs.

    Raises:
        ConfigError: This host's CPU is not what the options want, or its KVM is too old.
        HostError: The kernel refused something; nothing is left of the VM.
    """
    lacks = [name for name in _NEEDED if not kvm.has(name)]
    if lacks:
        raise ConfigError(f"this host's KVM lacks {', '.join(lacks)}")
    supported = kvm.supported_cpuid()
    entries = options.cpu.entries(supported)
    made = Made(kvm.create_vm(), supported, _machine_checks(kvm))
    try:
        _controllers(kvm, made.vm, options)
        deadline = bool(kvm.has("TSC_DEADLINE_TIMER"))
        for number in range(options.count):
            vcpu = made.vm.create_vcpu(number)
            made.vcpus.append(vcpu)
            made.cpuid.append(for_vcpu(entries, number, options.count, deadline=deadline))
            vcpu.set_cpuid(made.cpuid[number])
            if made.mce:
                vcpu.setup_mce(made.mce)
    except BaseException:
        made.close()
        raise
    return made


def make_rings(made: Made, entries: int) -> list[Ring]:
    """Return the vCPUs' rings of written pages, none where bitmaps note them."""
    offset = uapi.DIRTY_LOG_PAGE_OFFSET * mmap.PAGESIZE
    size = entries * uapi.DIRTY_GFN.size
    return [Ring(mmap.mmap(vcpu.fd, size, offset=offset)) for vcpu in made.vcpus if entries]


def _controllers(kvm: Kvm, vm: KvmVm, options: KvmOptions) -> None:
    if kvm.has("SET_TSS_ADDR"):
        vm.set_tss_address(_TSS)
    if kvm.has("SET_IDENTITY_MAP_ADDR"):
        vm.set_identity_map_address(_IDENTITY_MAP)
    for name in (
        "EXCEPTION_PAYLOAD",
        "X86_TRIPLE_FAULT_EVENT",
    ):  # what is pending can be told apart
        if kvm.has(name):
            vm.enable(name, 1)
    if options.ring:
        _rings(kvm, vm, options.ring)
    if options.split:
        vm.split_irqchip(uapi.IOAPIC_PINS)
    else:
        vm.create_irqchip()
    if options.pit:
        vm.create_pit()


def _rings(kvm: Kvm, vm: KvmVm, entries: int) -> None:
    name = "DIRTY_LOG_RING_ACQ_REL" if kvm.has("DIRTY_LOG_RING_ACQ_REL") else "DIRTY_LOG_RING"
    limit = kvm.has(name) // uapi.DIRTY_GFN.size
    if not limit:
        raise ConfigError("this host's KVM has no rings of written pages")
    if entries > limit or entries & entries - 1 or entries * uapi.DIRTY_GFN.size < mmap.PAGESIZE:
        least = mmap.PAGESIZE // uapi.DIRTY_GFN.size
        raise ConfigError(f"a ring of {entries} written pages: a power of two, {least} to {limit}")
    vm.enable(name, entries * uapi.DIRTY_GFN.size)


def _machine_checks(kvm: Kvm) -> int:
    banks = min(kvm.has("MCE"), _MCE_BANKS)
    return banks | kvm.mce_capabilities() & (_MCG_CTL_P | _MCG_SER_P) if banks else 0
