"""The guest's clocks: kvmclock, the TSCs, and the virtual time of devices. All stand still while the machine does.

kvmclock and TSC are set together, so that they never part: a guest watches one with the other. By option the pause is
shown: both go on by what the host's wall clock has gone on.

Source: own; the arithmetic is that of Linux Documentation/virt/kvm/devices/vcpu.rst 4.1, "KVM_VCPU_TSC_OFFSET".
"""

from __future__ import annotations

from time import monotonic_ns, time_ns

from instar.cpu.kvm import msrs, uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from instar.cpu.kvm.kvm import KvmVcpu, KvmVm

_MASK: Final = (1 << 64) - 1
_NS_TIMES_KHZ: Final = 1_000_000  # cycles = ns * kHz / this
_LOOKS: Final = 3  # at two clocks that cannot be read at once: one of them is hardly interrupted


class GuestClock:
    """Clocks of one VM; all its vCPUs are parked whenever it is called, but for :meth:`now_ns`.

    Args:
        vm: With kvmclock.
        vcpus: With their TSCs.
        shown: The guest sees how long it did not run.

    Attributes:
        clock_ns: kvmclock at the last look.
        fresh: No guest ran by it, here or in a program before.
        looked_ns: The host's wall clock then; 0: it never ran.
        runs: How often it was started.
        scaled: The guest's TSC does not run as fast as the host's.
        tscs: The guest's TSCs then.
    """

    __slots__ = (
        "_base_ns",
        "_offsets",
        "_running",
        "_shown",
        "_vcpus",
        "_vm",
        "clock_ns",
        "fresh",
        "looked_ns",
        "runs",
        "scaled",
        "tscs",
    )

    def __init__(self, vm: KvmVm, vcpus: Sequence[KvmVcpu], *, shown: bool) -> None:
        self._vm = vm
        self._vcpus = vcpus
        self._shown = shown
        self._offsets = vcpus[0].has_tsc_offset()
        self._base_ns = 0
        self._running = False
        self.runs = 0
        self.scaled = False
        self.fresh = True
        self.clock_ns = 0
        self.looked_ns = 0
        self.tscs = [0] * len(vcpus)

    def now_ns(self) -> int:
        """Return virtual time in nanoseconds; from any thread."""
        return self._base_ns + monotonic_ns() if self._running else self._base_ns

    def load(self, clock_ns: int, looked_ns: int, now_ns: int) -> None:
        """Take over the clocks of another program, which stand still; each vCPU's TSC goes into ``tscs``."""
        self.fresh = False
        self.clock_ns = clock_ns
        self.looked_ns = looked_ns
        self._base_ns = now_ns

    def look(self) -> None:
        """Note what the guest's clocks show now, if they go."""
        if not self._running:
            return
        self.looked_ns = time_ns()
        self.clock_ns, cycles = self._pair()
        self.tscs = [cycles + offset & _MASK for offset in self._all_offsets()]

    def stop(self) -> None:
        """Stop all clocks; stopped already is fine."""
        if not self._running:
            return
        self.look()
        self._base_ns += monotonic_ns()
        self._running = False

    def start(self) -> None:
        """Let all clocks go on; running already is fine."""
        if self._running:
            return
        if self.looked_ns:
            self._go_on()
        self._base_ns -= monotonic_ns()
        self._running = True
        self.runs += 1

    def level(self) -> None:
        """Let all TSCs show the same from the next start on, as after power-on; the clocks stand still."""
        self.tscs = [self.tscs[0]] * len(self.tscs)

    def set_khz(self, khz: int) -> None:
        """Let the TSCs run at another frequency than the host's (HostError)."""
        for vcpu in self._vcpus:
            vcpu.set_tsc_khz(khz)
        self.scaled = True

    def _go_on(self) -> None:
        missed = max(0, time_ns() - self.looked_ns) if self._shown else 0
        self._vm.set_clock(self.clock_ns + missed & _MASK)
        now_ns, cycles = self._pair()
        passed = (now_ns - self.clock_ns) * self._vcpus[0].tsc_khz() // _NS_TIMES_KHZ
        for vcpu, stopped in zip(self._vcpus, self.tscs, strict=True):
            tsc = stopped + passed & _MASK
            if self._offsets:
                vcpu.set_tsc_offset(tsc - cycles)
            else:  # the kernel takes writes that come at once as meant to be the same time
                vcpu.set_msrs([(msrs.TSC, tsc)])
            # It was armed for a moment of the host's TSC.
            armed = vcpu.msrs([msrs.TSC_DEADLINE])
            if armed and armed[0]:
                vcpu.set_msrs([(msrs.TSC_DEADLINE, armed[0])])
            vcpu.clock_was_stopped()

    def _pair(self) -> tuple[int, int]:
        """Return kvmclock and, of the same moment, what all TSCs are an offset from."""
        ns, flags, _, host = self._vm.clock()
        if flags & uapi.CLOCK_HOST_TSC and self._offsets and not self.scaled:
            return ns, host
        _, ns, cycles = min(self._bracketed() for _ in range(_LOOKS))
        return ns, cycles - (self._vcpus[0].tsc_offset() if self._offsets else 0)

    def _bracketed(self) -> tuple[int, int, int]:
        """Return how many cycles a look at kvmclock took, what it showed, and the first TSC in the middle of that."""
        first = self._vcpus[0]
        before = first.msrs([msrs.TSC])[0]
        ns = self._vm.clock()[0]
        took = first.msrs([msrs.TSC])[0] - before & _MASK
        return took, ns, before + took // 2

    def _all_offsets(self) -> list[int]:
        if self._offsets:
            return [vcpu.tsc_offset() for vcpu in self._vcpus]
        first, *_ = tscs = [vcpu.msrs([msrs.TSC])[0] for vcpu in self._vcpus]
        return [tsc - first for tsc in tscs]
