"""Memory slots, routes, registers to start from, registers to show."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpu.kvm import boot, uapi
from instar.cpu.kvm.cpuid import CpuModel
from instar.cpu.kvm.look import named
from instar.cpu.kvm.make import KvmOptions
from instar.cpu.kvm.memory import Memory, Ring
from instar.cpu.kvm.routes import Routes
from instar.errors import ConfigError, InternalBugError


class Vm:
    def __init__(self):
        self.slots = {}
        self.routes = []

    def set_memory(self, slot, gpa, size, address, flags=0):
        self.slots[slot] = gpa, size, address, flags

    def dirty_log(self, slot, pages):
        return bytearray(f"{slot}:{pages}".encode())

    def set_routes(self, entries):
        self.routes = entries


@pytest.mark.parametrize(
    ("gpa", "size", "address"), [(1, 4096, 0), (0, 4095, 0), (0, 0, 0), (0, 4096, 8)]
)
def test_what_is_no_whole_pages_is_refused(gpa, size, address):
    with pytest.raises(InternalBugError, match="no whole pages"):
        Memory(Vm()).add(gpa, size, address)


def test_written_pages_are_noted_for_ram_that_can_be_written():
    vm = Vm()
    memory = Memory(vm)
    memory.add(0, 8192, 0x10000)
    memory.add(0xF0000, 4096, 0x20000, read_only=True)
    memory.log(on=True)
    assert [flags for *_, flags in vm.slots.values()] == [1, 2]
    assert [(slot.gpa, bytes(bits)) for slot, bits in memory.written()] == [(0, b"0:2")]
    memory.log(on=False)
    assert [flags for *_, flags in vm.slots.values()] == [0, 2]


def unpack(entries):
    kinds = {uapi.ROUTE_IRQCHIP: uapi.ROUTING_IRQCHIP, uapi.ROUTE_MSI: uapi.ROUTING_MSI}
    return [kinds[uapi.ROUTING_MSI.unpack(entry)[1]].unpack(entry) for entry in entries]


def test_lines_lead_to_the_chips_as_the_kernel_sets_them_up():
    entries = unpack(Routes(Vm(), split=False).entries())
    pins = {(gsi, chip): pin for gsi, _, _, _, chip, pin in entries}
    assert pins[0, uapi.IRQCHIP_IOAPIC] == 2
    assert pins[8, uapi.IRQCHIP_PIC_SLAVE] == 0
    assert pins[23, uapi.IRQCHIP_IOAPIC] == 23
    assert len(entries) == 16 + 23


def test_lines_that_lead_to_messages_come_beside():
    vm = Vm()
    routes = Routes(vm, split=False)
    routes.set_message(24, 0x1_FEE0_1000, 0x4041)
    routes.apply()
    assert unpack(vm.routes)[-1] == (24, uapi.ROUTE_MSI, 0, 0, 0xFEE01000, 1, 0x4041, 0)
    routes.clear_message(24)
    routes.apply()
    assert len(vm.routes) == 39
    with pytest.raises(InternalBugError, match="line 3 leads to the IOAPIC"):
        routes.set_message(3, 0, 0)


def test_without_an_ioapic_in_the_kernel_all_lines_are_messages():
    routes = Routes(Vm(), split=True)
    assert routes.entries() == []
    routes.set_message(3, 0xFEE00000, 0x31)
    assert [entry[0] for entry in unpack(routes.entries())] == [3]


def shown(made):
    return named(made[1], made[0])


def test_pvh_starts_flat_without_paging():
    seen = shown(boot.protected(0x100000, {"rbx": 0x7000}))
    assert (seen["rip"], seen["rbx"]) == (0x100000, 0x7000)
    assert (seen["cr0"], seen["cr4"], seen["efer"]) == (0x11, 0, 0)
    assert {seen[f"{name}.limit"] for name in ("cs", "ds", "es", "ss")} == {0xFFFFFFFF}


def test_linux_starts_in_long_mode_with_its_segments():
    seen = shown(boot.long_mode(0x100200, 0x9000, {"rsi": 0x7000}, (0x500, 0x1F)))
    assert (seen["rip"], seen["rsi"], seen["cr3"]) == (0x100200, 0x7000, 0x9000)
    assert (seen["cs"], seen["ds"], seen["gdt.base"], seen["gdt.limit"]) == (0x10, 0x18, 0x500, 31)
    assert seen["efer"] == 0x500
    assert seen["cr0"] >> 31 == 1


def test_registers_are_shown_with_the_program_counter_first():
    assert list(shown(boot.real(0x7C00)))[:2] == ["rip", "rflags"]


@pytest.mark.parametrize("count", [0, 255])
def test_number_of_vcpus_has_its_limits(count):
    with pytest.raises(ConfigError, match=f"-smp {count}: KVM runs 1 to 254 vCPUs"):
        KvmOptions(count=count, cpu=CpuModel("host"))


def test_timer_in_the_kernel_needs_the_ioapic_there():
    with pytest.raises(ConfigError, match="i8254 in the kernel needs the IOAPIC"):
        KvmOptions(count=1, cpu=CpuModel("host"), split=True, pit=True)


class Vcpus:
    """Fills a ring as the kernel does."""

    def __init__(self, entries):
        self.ring = bytearray(entries * uapi.DIRTY_GFN.size)
        self.at = 0

    def writes(self, slot, page):
        at = self.at % (len(self.ring) // uapi.DIRTY_GFN.size) * uapi.DIRTY_GFN.size
        flags, *_ = uapi.DIRTY_GFN.unpack_from(self.ring, at)
        assert not flags & uapi.DIRTY_GFN_DIRTY
        uapi.DIRTY_GFN.pack_into(self.ring, at, uapi.DIRTY_GFN_DIRTY, slot, page)
        self.at += 1


class RingVm(Vm):
    def __init__(self):
        super().__init__()
        self.resets = 0

    def reset_dirty_rings(self):
        self.resets += 1


@given(st.lists(st.lists(st.integers(0, 99), max_size=8), max_size=6))
@settings(max_examples=30)
def test_pages_from_the_rings_are_said_once(rounds):
    vm, vcpus = RingVm(), [Vcpus(8), Vcpus(8)]
    memory = Memory(vm, [Ring(vcpu.ring) for vcpu in vcpus])
    memory.add(0, 100 * 4096, 0x10000)
    for pages in rounds:
        for n, page in enumerate(pages):
            vcpus[n % 2].writes(0, page)
        ((_, bits),) = memory.written()
        found = int.from_bytes(bits, "little")
        assert {page for page in range(128) if found >> page & 1} == set(pages)
    assert vm.resets == len(rounds)


def test_full_ring_is_emptied_and_its_pages_are_kept():
    vm, vcpu = RingVm(), Vcpus(4)
    memory = Memory(vm, [Ring(vcpu.ring)])
    memory.add(0, 64 * 4096, 0x10000)
    for first in (0, 4, 8):
        for page in range(first, first + 4):
            vcpu.writes(0, page)
        memory.collect()
    ((_, bits),) = memory.written()
    assert int.from_bytes(bits, "little") == (1 << 12) - 1
