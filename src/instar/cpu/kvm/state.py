"""What of a guest under KVM crosses an update.

The kernel's structures travel as bytes, as the kernel of the program before made them; the name of the capability that
decides their layout stands beside them where there is more than one. ``instar.cpu.kvm.check`` says which are taken.
"""

from __future__ import annotations

from instar.cpr.errors import StateInvalidError
from instar.cpr.state import State, blob, flag, i, state, text, u, us

CPU_TEXT = 1024  # bytes of what -cpu says
_PAGE = 4096
_IRQCHIPS = ("kernel", "split")
_LAST_MP_STATE = 10


@state("kvm-model", version=1)
class KvmModelState(State):
    """What of the vCPUs the command line decides and the guest can tell apart."""

    vcpus: int = u(16, "Number of vCPUs.", default=1)
    cpu: str = text("Model and features, as -cpu has them.", max=CPU_TEXT)
    irqchip: str = text("Where the IOAPIC is: kernel or split.", max=16)
    pit: bool = flag("There is an i8254 in the kernel.")
    tsc_khz: int = u(32, "Frequency of the guest's TSC, 0: the host's.", unit="kHz")
    mce: int = u(64, "MCG_CAP: what there is of machine checks.")

    def check(self) -> None:
        """Refuse no vCPUs and an interrupt controller that does not exist."""
        if not self.vcpus:
            raise StateInvalidError("kvm-model.vcpus: 0, at least 1")
        if self.irqchip and self.irqchip not in _IRQCHIPS:
            raise StateInvalidError(f"kvm-model.irqchip: {self.irqchip!r} is not {_IRQCHIPS}")


@state("kvm-vm", version=1)
class KvmVmState(State):
    """What the vCPUs share: clocks and interrupt controllers."""

    clock_ns: int = u(64, "kvmclock when the guest was stopped.", unit="ns")
    stopped_ns: int = u(64, "The host's wall clock then.", unit="ns")
    now_ns: int = i(64, "Virtual time of devices then.", unit="ns")
    pic_master: bytes = blob("struct kvm_irqchip.chip, i8259.", max=512)
    pic_slave: bytes = blob("As pic_master.", max=512)
    ioapic: bytes = blob("As pic_master, IOAPIC.", max=512)
    pit: bytes = blob("struct kvm_pit_state2; empty: there is none.", max=512)


@state("kvm-vcpu", version=1)
class KvmVcpuState(State):
    """One vCPU; the structures are the kernel's."""

    cpuid: bytes = blob(
        "What the guest sees of CPUID: function, index, flags, EAX, EBX, ECX, EDX of each, u32.",
        max=256 * 28,
    )
    regs: bytes = blob("struct kvm_regs.", max=_PAGE)
    sregs: bytes = blob("struct kvm_sregs or kvm_sregs2.", max=_PAGE)
    sregs_from: str = text("Capability that sregs is of: SREGS2, or none.", max=16)
    xcrs: bytes = blob("struct kvm_xcrs; empty: there are none.", max=_PAGE)
    xsave: bytes = blob("struct kvm_xsave, as long as XSAVE2 says.", max=1 << 20)
    debugregs: bytes = blob("struct kvm_debugregs.", max=_PAGE)
    msr_indices: list[int] = us(32, "Model specific registers that were read.", max=4096)
    msr_values: list[int] = us(64, "What they held.", max=4096)
    lapic: bytes = blob("struct kvm_lapic_state.", max=_PAGE)
    events: bytes = blob("struct kvm_vcpu_events.", max=_PAGE)
    mp_state: int = u(8, "KVM_MP_STATE_*: runnable, halted, waiting to be started.")
    nested: bytes = blob("struct kvm_nested_state; empty: there is none.", max=1 << 16)
    tsc: int = u(64, "The guest's TSC when it was stopped.", unit="cycles")

    def check(self) -> None:
        """Refuse lists that do not belong together and a state that no vCPU can be in."""
        if len(self.msr_indices) != len(self.msr_values):
            raise StateInvalidError(
                f"kvm-vcpu.msr_values: {len(self.msr_values)} values of {len(self.msr_indices)} registers"
            )
        if len(set(self.msr_indices)) != len(self.msr_indices):
            raise StateInvalidError("kvm-vcpu.msr_indices: a register twice")
        if self.mp_state > _LAST_MP_STATE:
            raise StateInvalidError(f"kvm-vcpu.mp_state: {self.mp_state}, limit {_LAST_MP_STATE}")
        if len(self.cpuid) % 28:
            raise StateInvalidError(
                f"kvm-vcpu.cpuid: {len(self.cpuid)} bytes are no entries of 28"
            )
