"""Model specific registers: which there are is asked of the kernel, never known by version.

The kernel lists what it thinks should be saved. Some that matter to a guest are not on its list (memory type ranges,
machine checks); these are tried as well. What a vCPU cannot read here is left out for good.

Source: Linux Documentation/virt/kvm/api.rst 4.3, 4.18, 4.19; AMD64 Architecture Programmer's Manual 2, appendix A;
Intel SDM 4, table 2-2.
"""

from __future__ import annotations

from instar.cpu.kvm import uapi
from instar.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Final

    from instar.cpu.kvm.kvm import KvmVcpu

TSC: Final = 0x10
TSC_DEADLINE: Final = 0x6E0
_MCE_BANK: Final = 0x400  # four registers each
_BANKS: Final = 0xFF  # bits of MCG_CAP that count banks
_UNLISTED: Final = (
    0x48,  # IA32_SPEC_CTRL
    0x1D9,  # IA32_DEBUGCTL
    0x2FF,  # IA32_MTRR_DEF_TYPE
    *range(0x200, 0x210),  # ranges of memory types
    *(0x250, 0x258, 0x259, *range(0x268, 0x270)),  # fixed ones
    0x277,  # IA32_PAT
    0x17A,  # IA32_MCG_STATUS
    0x17B,  # IA32_MCG_CTL
    0xC0011029,  # AMD64_DE_CFG
)
NAMES: Final = {
    0x10: "IA32_TSC",
    0x11: "KVM_WALL_CLOCK",
    0x12: "KVM_SYSTEM_TIME",
    0x34: "SMI_COUNT",
    0x3A: "IA32_FEATURE_CONTROL",
    0x3B: "IA32_TSC_ADJUST",
    0x48: "IA32_SPEC_CTRL",
    0x8B: "IA32_UCODE_REV",
    0xCE: "PLATFORM_INFO",
    0x10A: "IA32_ARCH_CAPABILITIES",
    0x122: "IA32_TSX_CTRL",
    0x140: "MISC_FEATURES_ENABLES",
    0x174: "IA32_SYSENTER_CS",
    0x175: "IA32_SYSENTER_ESP",
    0x176: "IA32_SYSENTER_EIP",
    0x17A: "IA32_MCG_STATUS",
    0x17B: "IA32_MCG_CTL",
    0x1A0: "IA32_MISC_ENABLE",
    0x1C4: "IA32_XFD",
    0x1C5: "IA32_XFD_ERR",
    0x1D9: "IA32_DEBUGCTL",
    0x277: "IA32_PAT",
    0x2FF: "IA32_MTRR_DEF_TYPE",
    0x345: "IA32_PERF_CAPABILITIES",
    0x6E0: "IA32_TSC_DEADLINE",
    0xD90: "IA32_BNDCFGS",
    0xDA0: "IA32_XSS",
    0xC0000081: "STAR",
    0xC0000082: "LSTAR",
    0xC0000083: "CSTAR",
    0xC0000084: "SYSCALL_MASK",
    0xC0000102: "KERNEL_GS_BASE",
    0xC0000103: "TSC_AUX",
    0xC0000104: "TSC_RATIO",
    0xC0010015: "HWCR",
    0xC0010117: "VM_HSAVE_PA",
    0xC001011F: "VIRT_SPEC_CTRL",
    0xC0011029: "DE_CFG",
    0x4B564D00: "KVM_WALL_CLOCK_NEW",
    0x4B564D01: "KVM_SYSTEM_TIME_NEW",
    0x4B564D02: "KVM_ASYNC_PF_EN",
    0x4B564D03: "KVM_STEAL_TIME",
    0x4B564D04: "KVM_PV_EOI_EN",
    0x4B564D05: "KVM_POLL_CONTROL",
    0x4B564D06: "KVM_ASYNC_PF_INT",
    0x4B564D07: "KVM_ASYNC_PF_ACK",
    0x4B564D08: "KVM_MIGRATION_CONTROL",
}
# KVM_ASYNC_PF_ACK acknowledges an interrupt that is pending; the TSC is the clocks' business. Hyper-V's reference time
# follows kvmclock, and its run time of a vCPU is the host's, of the thread.
_NOT_SAVED: Final = frozenset((0x4B564D07, TSC, 0x4000_0020, 0x4000_0010))
_SYSENTER_ESP: Final = 0x175
_INTEL: Final = "GenuineIntel"


def name_of(index: int) -> str:
    """Return an MSR's name for people."""
    return NAMES.get(index, f"MSR {index:#x}")


class Msrs:
    """The MSRs of this VM's vCPUs.

    Args:
        listed: What the kernel lists.
        mce: The guest's MCG_CAP.
        vendor: Of the guest's CPU. Others than Intel's have SYSENTER only where addresses have 32 bits, and KVM takes
            no more of its stack pointer, but gives what a guest has written.

    Attributes:
        indices: What is read, in the order of writing; what turns out not to be readable leaves.
    """

    __slots__ = ("_narrow", "indices")

    def __init__(self, listed: Iterable[int], mce: int, *, vendor: str = _INTEL) -> None:
        banks = range(_MCE_BANK, _MCE_BANK + 4 * (mce & _BANKS))
        wanted = dict.fromkeys((*listed, *_UNLISTED, *banks))
        self.indices = [index for index in wanted if index not in _NOT_SAVED]
        self._narrow = vendor != _INTEL

    def read(self, vcpu: KvmVcpu) -> tuple[list[int], list[int]]:
        """Return indices and values."""
        values: list[int] = []
        while len(values) < len(self.indices):
            part = self.indices[len(values) : len(values) + uapi.MAX_MSRS_AT_ONCE]
            found = vcpu.msrs(part)
            values += found
            if len(found) < len(part):  # the next one cannot be read: nobody misses it
                del self.indices[len(values)]
        if self._narrow and _SYSENTER_ESP in self.indices:
            values[self.indices.index(_SYSENTER_ESP)] &= 0xFFFF_FFFF
        return list(self.indices), values

    def write(self, vcpu: KvmVcpu, values: Sequence[tuple[int, int]]) -> None:
        """Set MSRs in this order.

        Raises:
            HostError: One does not take its value, nor has it already; those before it are set.
        """
        done = 0
        while done < len(values):
            part = values[done : done + uapi.MAX_MSRS_AT_ONCE]
            count = vcpu.set_msrs(part)
            done += count
            if count < len(part):
                index, value = values[done]
                if vcpu.msrs([index]) != [
                    value
                ]:  # some only say what the host is, and say it here too
                    raise HostError(
                        f"vCPU {vcpu.number}: the kernel refused {value:#x} for {name_of(index)};"
                        " the guest cannot go on here"
                    )
                done += 1


def knows(vcpu: KvmVcpu, index: int) -> bool:
    """Whether a vCPU has an MSR here."""
    return bool(vcpu.msrs([index]))
