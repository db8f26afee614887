"""KVM as a machine uses it: ``Vcpus`` of ``instar.machine.parts``, where most members are described.

VM and vCPUs are made here, and made anew by the program after an update: their descriptors do not outlive their
address space. What they are is ``states``.
"""

from __future__ import annotations

from instar.cpu.kvm import boot, uapi
from instar.cpu.kvm.boxes import ModelBox, VcpuBox, VmBox
from instar.cpu.kvm.clock import GuestClock
from instar.cpu.kvm.cpuid import vendor_of
from instar.cpu.kvm.exits import Exits
from instar.cpu.kvm.host import Host
from instar.cpu.kvm.ioapic import Ioapic
from instar.cpu.kvm.look import registers_of
from instar.cpu.kvm.make import make, make_rings
from instar.cpu.kvm.memory import Memory
from instar.cpu.kvm.msrs import Msrs
from instar.cpu.kvm.routes import Routes
from instar.cpu.kvm.state import KvmModelState, KvmVmState
from instar.cpu.kvm.thread import Threads
from instar.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from instar.cpu.kvm.exits import Bus
    from instar.cpu.kvm.kvm import Kvm
    from instar.cpu.kvm.make import KvmOptions, Made
    from instar.stateful import Stateful

    T = TypeVar("T")


class Wishes:
    """What else than devices vCPUs come out for; called in their threads.

    Attributes:
        reset: The guest is to start anew (a triple fault).
        shutdown: It is to end.
        bug: Nobody can go on from this exception.
    """

    __slots__ = ("bug", "reset", "shutdown")

    def __init__(
        self,
        *,
        bug: Callable[[BaseException], object],
        reset: Callable[[], object],
        shutdown: Callable[[], object],
    ) -> None:
        self.bug = bug
        self.reset = reset
        self.shutdown = shutdown


class KvmVcpus:
    """The guest's processors under KVM.

    Args:
        kvm: The device; it stays the caller's.
        options: What the command line says.
        bus: Where exits for devices go, in vCPUs' threads.
        wishes: Where the others go; before the first two are called, all vCPUs have been told to park.

    Attributes:
        ioapic: To be put on the bus at ``ioapic.BASE`` where it is not in the kernel; else None.
        memory: The guest's RAM.
        routes: From interrupt lines to messages.
        vcpus: One for each.

    Raises:
        ConfigError: This host's CPU is not what the options want.
        HostError: The kernel refused something; nothing is left of the VM.
    """

    __slots__ = (
        "_boxes",
        "_clock",
        "_cpuid",
        "_host",
        "_kvm",
        "_msrs",
        "_options",
        "_threads",
        "_vm_box",
        "_wishes",
        "counts",
        "hardware",
        "harts",
        "ioapic",
        "memory",
        "routes",
        "states",
        "vcpus",
        "vm",
    )

    def __init__(self, kvm: Kvm, options: KvmOptions, *, bus: Bus, wishes: Wishes) -> None:
        self.counts = False
        self.hardware = True
        self.harts: list[Stateful] = []  # none runs on in a program that is not this one
        self._kvm = kvm
        self._options = options
        self._wishes = wishes
        made = make(kvm, options)
        try:
            self._put_together(made, bus)
        except BaseException:
            made.close()
            raise

    def _put_together(self, made: Made, bus: Bus) -> None:
        """Make all that is around the vCPUs."""
        kvm, options = self._kvm, self._options
        self.vm, self.vcpus, self._cpuid = made.vm, made.vcpus, made.cpuid
        self._host = Host(kvm, self.vm, made.supported)
        vendor = vendor_of(made.cpuid[0])
        self._msrs = Msrs(kvm.msr_indices(), made.mce, vendor=vendor)
        self._clock = GuestClock(self.vm, self.vcpus, shown=options.pause_shown)
        self.memory = Memory(self.vm, make_rings(made, options.ring))
        self.routes = Routes(self.vm, split=options.split)
        self.ioapic = Ioapic(self.vm, self.routes) if options.split else None
        model = KvmModelState(
            vcpus=options.count,
            cpu=options.cpu.text,
            irqchip="split" if options.split else "kernel",
            pit=options.pit,
            tsc_khz=self.vcpus[0].tsc_khz(),
            mce=made.mce,
        )
        self._vm_box = VmBox(made, self._clock, self.ioapic, pit=options.pit)
        self._boxes = [
            VcpuBox(vcpu, cpuid, self._msrs, self._clock, self._host)
            for vcpu, cpuid in zip(self.vcpus, made.cpuid, strict=True)
        ]
        self.states: list[Stateful] = [
            ModelBox(model, self._host, self._clock),
            self._vm_box,
            *self._boxes,
        ]
        self._threads = Threads()
        for vcpu in self.vcpus:
            self._threads.add(vcpu, Exits(vcpu.shared, bus, self).serve, self._wishes.bug)

    @property
    def target(self) -> str:
        """Architecture, named as in QEMU."""
        return "x86_64"

    @property
    def qom_type(self) -> str:
        """QEMU's name of their type."""
        return f"{self._options.cpu.name}-x86_64-cpu"

    @property
    def count(self) -> int:
        """How many there are."""
        return self._options.count

    def close(self) -> None:
        """Give VM and vCPUs back, which are parked; nothing else may be called any more.

        For whoever has several machines in one process; with the process the kernel ends them itself.
        """
        self.memory.close()
        for vcpu in self.vcpus:
            vcpu.close()
        self.vm.close()

    def get_ready(self) -> None:
        """Start the threads, parked (RuntimeError)."""
        self._threads.get_ready()

    def resume(self) -> None:
        """Let the vCPUs run."""
        self._clock.fresh = False
        self._threads.resume()

    def pause(self) -> None:
        """Park the vCPUs, no access half done."""
        self._threads.pause()

    def hold(self) -> None:
        """Make the vCPUs park soon, until :meth:`resume`."""
        self._threads.hold()

    def parked(self, look: Callable[[], T]) -> T:
        """Call ``look`` while the vCPUs stand still."""
        return self._threads.parked(look)

    def reload(self, load: Callable[[], object]) -> None:
        """Let ``load`` give the vCPUs other state."""
        load()

    def now_ns(self) -> int:
        """Return virtual time in nanoseconds."""
        return self._clock.now_ns()

    def clock_start(self) -> None:
        """Let the guest's clocks go on; the vCPUs are parked."""
        self._clock.start()

    def clock_stop(self) -> None:
        """Let the guest's clocks stand still; the vCPUs are parked."""
        self._clock.stop()

    def next_timer_ns(self) -> int:
        """Return -1: nobody counts."""
        return -1

    def instructions(self) -> int:
        """Return -1: nobody counts."""
        return -1

    def set_break(self, count: int) -> None:
        """Refuse it: nobody counts."""
        raise CommandError(f"KVM does not count instructions, so nothing stops at {count}")

    def thread_id(self, n: int) -> int:
        """Return the host's id of the thread that runs one, 0 before it has."""
        return self._threads.members[n].thread_id

    def registers(self, n: int) -> Mapping[str, int]:
        """Return one's registers by name."""
        return self.parked(lambda: registers_of(self.vcpus[n]))

    def translate(self, n: int, va: int) -> int:
        """Return the guest physical address of ``va``, -1 if unmapped."""
        return self.parked(lambda: self.vcpus[n].translate(va))

    def disassemble(self, read: Callable[[int, int], bytes], address: int) -> tuple[int, str]:
        """Refuse it."""
        raise CommandError("nobody here can read x86-64 instructions")

    # What a board asks for.

    def line(self, gsi: int) -> Callable[[bool], None]:
        """Return what drives an interrupt line, 0 to 23; from any thread."""
        set_line = self.ioapic.set_line if self.ioapic else self.vm.set_line

        def drive(level: bool) -> None:  # noqa: FBT001 - the shape of a wire
            set_line(gsi, level)

        return drive

    def ioeventfd(self, gpa: int, size: int, match: int | None, fd: int) -> None:
        """Let a guest's write at ``gpa`` signal an eventfd instead of coming out (``KvmVm.ioeventfd``)."""
        self.vm.ioeventfd(gpa, size, fd, match=match)

    def irqfd(self, gsi: int, fd: int, resample_fd: int = -1) -> None:
        """Let an eventfd raise a line (``KvmVm.irqfd``)."""
        if self.ioapic and resample_fd >= 0:  # the kernel does not hear of its acknowledgements
            self.ioapic.resample(gsi, resample_fd)
            self.vm.irqfd(gsi, fd)
        else:
            self.vm.irqfd(gsi, fd, resample_fd)

    def irqfd_off(self, gsi: int, fd: int) -> None:
        """Take the eventfd off the line."""
        if self.ioapic:
            self.ioapic.resample(gsi, -1)
        self.vm.irqfd_off(gsi, fd)

    def reset(self) -> None:
        """Bring vCPUs and interrupt controllers to the state after power-on; parked.

        What that is, a new VM says, which is made for it and given back.
        """
        if self._clock.fresh:
            return
        made = make(self._kvm, self._options)
        try:
            clock = GuestClock(made.vm, made.vcpus, shown=False)
            if self.ioapic:
                self.ioapic.reset()
            else:
                found = KvmVmState()
                VmBox(made, clock, None, pit=self._options.pit).save_chips(found)
                self._vm_box.load_chips(found)
            for box, vcpu in zip(self._boxes, made.vcpus, strict=True):
                fresh = VcpuBox(vcpu, box.cpuid, self._msrs, clock, self._host).save_state()
                box.leave_nested(fresh)
                box.load_registers(fresh)
            self._clock.level()  # what a guest has set one ahead of the others is not in IA32_TSC_ADJUST any more
        finally:
            made.close()

    def start_real(self, entry: int) -> None:
        """Let the first vCPU start in real mode, with all segments at 0 (HostError)."""
        self._start(*boot.real(entry))

    def start_protected(self, entry: int, named: Mapping[str, int]) -> None:
        """Let the first vCPU start in 32-bit mode: PVH, with ``rbx`` (HostError; see :func:`boot.protected`)."""
        self._start(*boot.protected(entry, named))

    def start_long_mode(
        self, entry: int, page_tables: int, named: Mapping[str, int], gdt: tuple[int, int] = (0, 0)
    ) -> None:
        """Let the first vCPU start in 64-bit mode: Linux, with ``rsi`` (HostError; see :func:`boot.long_mode`)."""
        self._start(*boot.long_mode(entry, page_tables, named, gdt))

    def _start(self, sregs: bytes, regs: bytes) -> None:
        self.vcpus[0].set(uapi.SET_SREGS, sregs)
        self.vcpus[0].set(uapi.SET_REGS, regs)

    # What vCPUs come out for: ``Events`` of instar.cpu.kvm.exits.

    def wants_reset(self) -> None:
        """The guest is to start anew."""
        self.hold()
        self._wishes.reset()

    def wants_shutdown(self) -> None:
        """The guest is to end."""
        self.hold()
        self._wishes.shutdown()

    def end_of_interrupt(self, vector: int) -> None:
        """A LAPIC tells the IOAPIC, which is not in the kernel, that the guest is done."""
        if self.ioapic:
            self.ioapic.end_of_interrupt(vector)

    def dirty_ring_full(self) -> None:
        """A ring of written pages has to be emptied."""
        self.memory.collect()
