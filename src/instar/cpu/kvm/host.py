"""What this host's KVM and CPU can take of a guest's state; asked once, nothing of it changes."""

from __future__ import annotations

from instar.cpu.kvm import uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from instar.cpu.kvm.kvm import CpuidEntry, Kvm, KvmVm


class Host:
    """Facts.

    Attributes:
        cpuid: What KVM can show a guest.
        sregs2: Special registers come with the page directory pointers of 32-bit guests.
        xcrs: There are extended control registers.
        get_xsave: The request for the extended state.
        xsave_size: Bytes of it.
        nested_size: Most bytes of a nested guest's state, 0: there are none.
        can_scale: A TSC can have another frequency than the host's.
        events: Flags of ``struct kvm_vcpu_events`` that this kernel takes.
    """

    __slots__ = (
        "can_scale",
        "cpuid",
        "events",
        "get_xsave",
        "nested_size",
        "sregs2",
        "xcrs",
        "xsave_size",
    )

    def __init__(self, kvm: Kvm, vm: KvmVm, cpuid: Sequence[CpuidEntry]) -> None:
        self.cpuid = cpuid
        self.sregs2 = bool(kvm.has("SREGS2"))
        self.xcrs = bool(kvm.has("XCRS"))
        size = vm.has("XSAVE2")  # of a VM: what its process may use decides
        self.get_xsave = uapi.GET_XSAVE2 if size else uapi.GET_XSAVE
        self.xsave_size = max(size, uapi.XSAVE_SIZE)
        self.nested_size = kvm.has("NESTED_STATE")
        self.can_scale = bool(kvm.has("TSC_CONTROL"))
        self.events = uapi.EVENT_NMI_PENDING | uapi.EVENT_SIPI_VECTOR | uapi.EVENT_SHADOW
        self.events |= uapi.EVENT_SMM  # the flag, not the mode: a kernel without it refuses that
        if kvm.has("EXCEPTION_PAYLOAD"):
            self.events |= uapi.EVENT_PAYLOAD
        if kvm.has("X86_TRIPLE_FAULT_EVENT"):
            self.events |= uapi.EVENT_TRIPLE_FAULT
