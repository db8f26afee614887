"""The vCPUs' state as an update sees it: what they are, what they share, and one object for each.

Order matters to the kernel. CPUID decides what all else may hold. The special registers say whether the LAPIC is in
x2APIC mode, and what an FPU state means. General registers take pending exceptions away, so events come after them;
the deadline timer needs TSC and LAPIC; what a guest's guest does is last, since it copies what is set already.

Source: own; Linux Documentation/virt/kvm/api.rst at each request, and what arch/x86/kvm of Linux 6.12 does for them.
"""

from __future__ import annotations

from instar.cpr.errors import StateInvalidError
from instar.cpu.kvm import check, uapi
from instar.cpu.kvm.msrs import TSC, TSC_DEADLINE
from instar.cpu.kvm.state import KvmModelState, KvmVcpuState, KvmVmState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from instar.cpr.state import State
    from instar.cpu.kvm.clock import GuestClock
    from instar.cpu.kvm.host import Host
    from instar.cpu.kvm.ioapic import Ioapic
    from instar.cpu.kvm.kvm import CpuidEntry, KvmVcpu
    from instar.cpu.kvm.make import Made
    from instar.cpu.kvm.msrs import Msrs


class ModelBox:
    """Checks that the vCPUs found are those that were left."""

    __slots__ = ("_clock", "_host", "_state")
    state_id = "kvm-model"
    state_class: ClassVar[type[State]] = KvmModelState

    def __init__(self, state: KvmModelState, host: Host, clock: GuestClock) -> None:
        self._state = state
        self._host = host
        self._clock = clock

    def save_state(self) -> KvmModelState:
        """Return what the command line decided."""
        return self._state

    def check_against(self, state: KvmModelState) -> None:
        """Refuse other vCPUs, and a TSC that this host cannot have (StateInvalidError); nothing was changed."""
        for name in ("vcpus", "cpu", "irqchip", "pit", "mce"):
            theirs, ours = getattr(state, name), getattr(self._state, name)
            if theirs != ours:
                raise StateInvalidError(
                    f"kvm-model.{name}: the guest has {theirs}, this command line gives {ours}"
                )
        check.tsc(state.tsc_khz, self._state.tsc_khz, can_scale=self._host.can_scale)

    def load_state(self, state: KvmModelState) -> None:
        """Let the TSC run as the guest knows it (HostError); the rest is what was checked."""
        if self._host.can_scale and state.tsc_khz not in (0, self._state.tsc_khz):
            self._clock.set_khz(state.tsc_khz)
        self._state = state


class VmBox:
    """Clocks and interrupt controllers."""

    __slots__ = ("_clock", "_ioapic", "_pit", "_vcpus", "_vm")
    state_id = "kvm-vm"
    state_class: ClassVar[type[State]] = KvmVmState

    def __init__(
        self,
        made: Made,
        clock: GuestClock,
        ioapic: Ioapic | None,
        *,
        pit: bool,
    ) -> None:
        self._vm = made.vm
        self._vcpus = made.vcpus
        self._clock = clock
        self._ioapic = ioapic  # None: it is in the kernel, as the PICs are then
        self._pit = pit

    def save_state(self) -> KvmVmState:
        """Return a copy; the vCPUs must be parked. Before theirs: it looks at the clocks for them, too."""
        self._clock.look()
        found = KvmVmState(
            clock_ns=self._clock.clock_ns,
            stopped_ns=self._clock.looked_ns,
            now_ns=self._clock.now_ns(),
        )
        self.save_chips(found)
        return found

    def save_chips(self, state: KvmVmState) -> None:
        """Put the interrupt controllers and the timer into ``state``."""
        if self._ioapic:
            state.ioapic = self._ioapic.save(self._lapics() if self._ioapic.waits() else ())
        else:
            state.pic_master = self._vm.irqchip(uapi.IRQCHIP_PIC_MASTER)
            state.pic_slave = self._vm.irqchip(uapi.IRQCHIP_PIC_SLAVE)
            state.ioapic = self._vm.irqchip(uapi.IRQCHIP_IOAPIC)
        if self._pit:
            state.pit = without_times(self._vm.pit())

    def _lapics(self) -> list[bytes]:
        return [vcpu.get(uapi.GET_LAPIC, uapi.LAPIC_SIZE) for vcpu in self._vcpus]

    def check_against(self, state: KvmVmState) -> None:
        """Refuse structures of another size or another machine (StateInvalidError); nothing was changed."""
        size = 0 if self._ioapic else uapi.IRQCHIP_SIZE
        check.exact("kvm-vm.pic_master", state.pic_master, size)
        check.exact("kvm-vm.pic_slave", state.pic_slave, size)
        check.exact("kvm-vm.ioapic", state.ioapic, uapi.IRQCHIP_SIZE)
        check.exact("kvm-vm.pit", state.pit, uapi.PIT_STATE2.size if self._pit else 0)

    def load_state(self, state: KvmVmState) -> None:
        """Take over; before the vCPUs, whose LAPICs say in the end what is pending. The clocks stand still."""
        self.load_chips(state)
        self._clock.load(state.clock_ns, state.stopped_ns, state.now_ns)

    def load_chips(self, state: KvmVmState) -> None:
        """Set the interrupt controllers and the timer."""
        if self._ioapic:
            self._ioapic.load(state.ioapic)
        else:
            self._vm.set_irqchip(uapi.IRQCHIP_PIC_MASTER, state.pic_master)
            self._vm.set_irqchip(uapi.IRQCHIP_PIC_SLAVE, state.pic_slave)
            self._vm.set_irqchip(uapi.IRQCHIP_IOAPIC, state.ioapic)
        if self._pit:
            self._vm.set_pit(state.pit)


def without_times(pit: bytes) -> bytes:
    """Return ``struct kvm_pit_state2`` without the host's times of loading: setting it loads all counters anew."""
    changed = bytearray(pit)
    for n in range(uapi.PIT_CHANNELS):
        end = (n + 1) * uapi.PIT_CHANNEL_SIZE
        changed[end - uapi.PIT_TIME_SIZE : end] = bytes(uapi.PIT_TIME_SIZE)
    return bytes(changed)


class VcpuBox:
    """One vCPU."""

    __slots__ = ("_clock", "_host", "_loaded", "_msrs", "_packed", "cpuid", "state_id", "vcpu")
    state_class: ClassVar[type[State]] = KvmVcpuState

    def __init__(
        self,
        vcpu: KvmVcpu,
        cpuid: list[CpuidEntry],
        msrs: Msrs,
        clock: GuestClock,
        host: Host,
    ) -> None:
        self.vcpu = vcpu
        self.cpuid = cpuid
        self._packed = check.pack_cpuid(cpuid)
        self._msrs = msrs
        self._clock = clock
        self._host = host
        self._loaded = (-1, b"")  # before which run, and what the LAPIC's timer had left
        self.state_id = f"kvm-vcpu/{vcpu.number}"

    def save_state(self) -> KvmVcpuState:
        """Return a copy; the vCPU must be parked."""
        vcpu, host = self.vcpu, self._host
        # First: it is what makes the kernel act on start-up messages that wait.
        (mp_state,) = uapi.MP_STATE.unpack(vcpu.get(uapi.GET_MP_STATE, uapi.MP_STATE.size))
        indices, values = self._msrs.read(vcpu)
        sregs2 = host.sregs2
        return KvmVcpuState(
            cpuid=self._packed,
            regs=vcpu.get(uapi.GET_REGS, uapi.REGS.size),
            sregs=vcpu.get(uapi.GET_SREGS2, uapi.SREGS2_SIZE)
            if sregs2
            else vcpu.get(uapi.GET_SREGS, uapi.SREGS_SIZE),
            sregs_from="SREGS2" if sregs2 else "",
            xcrs=vcpu.get(uapi.GET_XCRS, uapi.XCRS_SIZE) if host.xcrs else b"",
            xsave=vcpu.get(host.get_xsave, host.xsave_size),
            debugregs=vcpu.get(uapi.GET_DEBUGREGS, uapi.DEBUGREGS_SIZE),
            msr_indices=indices,
            msr_values=values,
            lapic=self._lapic(),
            events=vcpu.get(uapi.GET_VCPU_EVENTS, uapi.EVENTS_SIZE),
            mp_state=mp_state,
            nested=vcpu.nested_state(host.nested_size) if host.nested_size else b"",
            tsc=self._clock.tscs[vcpu.number],
        )

    def _lapic(self) -> bytes:
        """Return the LAPIC; its timer goes on in the kernel while the guest stands still, and is where it was."""
        found = self.vcpu.get(uapi.GET_LAPIC, uapi.LAPIC_SIZE)
        run, left = self._loaded
        if run != self._clock.runs:
            return found
        at = uapi.LAPIC_TIMER_LEFT_AT
        return found[:at] + left + found[at + len(left) :]

    def check_against(self, state: KvmVcpuState) -> None:
        """Refuse what this host's CPU and kernel cannot take (StateInvalidError); nothing was changed."""
        check.vcpu(self.state_id, state, self._host, self._msrs, self.vcpu)
        if state.cpuid != self._packed:
            check.features(self.state_id, state.cpuid, self._host)

    def load_state(self, state: KvmVcpuState) -> None:
        """Set everything; it never ran, or is parked.

        Raises:
            HostError: The kernel refused a part; the vCPU is neither what it was nor what it should be.
        """
        self._clock.tscs[self.vcpu.number] = state.tsc
        if state.cpuid != self._packed:  # else it is set, and a vCPU that has run takes no other
            self.cpuid = check.unpack_cpuid(state.cpuid)
            self._packed = state.cpuid
            self.vcpu.set_cpuid(self.cpuid)
        self.load_registers(state)

    def leave_nested(self, state: KvmVcpuState) -> None:
        """Leave what a hypervisor in the guest began: it decides which control registers the vCPU takes (HostError).

        Args:
            state: Of a vCPU in which there is none.
        """
        if state.nested and self._host.nested_size:
            self.vcpu.set(uapi.SET_NESTED_STATE, state.nested)

    def load_registers(self, state: KvmVcpuState) -> None:
        """Set everything but CPUID and the clocks."""
        vcpu, host = self.vcpu, self._host
        set_sregs = uapi.SET_SREGS2 if host.sregs2 else uapi.SET_SREGS
        vcpu.set(set_sregs, check.sregs_for(state, sregs2=host.sregs2))
        if host.xcrs:
            vcpu.set(uapi.SET_XCRS, state.xcrs)
        vcpu.set(uapi.SET_XSAVE, check.sized(state.xsave, host.xsave_size))
        held = dict(zip(state.msr_indices, state.msr_values, strict=True))
        deadline = held.pop(TSC_DEADLINE, 0)
        if state.tsc:  # near enough for the timers; the clock sets it when it goes on
            vcpu.set_msrs([(TSC, state.tsc)])
        self._msrs.write(vcpu, list(held.items()))
        vcpu.set(uapi.SET_REGS, state.regs)
        vcpu.set(uapi.SET_LAPIC, state.lapic)
        at = uapi.LAPIC_TIMER_LEFT_AT
        self._loaded = (self._clock.runs, state.lapic[at : at + 4])
        if deadline:
            self._msrs.write(vcpu, [(TSC_DEADLINE, deadline)])
        vcpu.set(uapi.SET_DEBUGREGS, state.debugregs)
        vcpu.set(uapi.SET_VCPU_EVENTS, state.events)
        vcpu.set(uapi.SET_MP_STATE, uapi.MP_STATE.pack(state.mp_state))
        if state.nested and host.nested_size:
            vcpu.set(uapi.SET_NESTED_STATE, state.nested)
