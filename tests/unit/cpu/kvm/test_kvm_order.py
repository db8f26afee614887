"""What is saved of vCPUs, and the order in which the kernel gets it back."""

import pytest
from kvm_hosts import EVERYTHING, host

from instar.cpr.errors import StateInvalidError
from instar.cpr.state import load, save
from instar.cpu.kvm import uapi
from instar.cpu.kvm.boxes import ModelBox, VcpuBox, VmBox
from instar.cpu.kvm.calls import name_of
from instar.cpu.kvm.msrs import TSC, TSC_DEADLINE, Msrs
from instar.cpu.kvm.state import KvmModelState, KvmVcpuState, KvmVmState

CPUID = host(EVERYTHING)


class Clock:
    def __init__(self):
        self.tscs = [777]
        self.clock_ns, self.looked_ns = 11, 22
        self.looks = self.runs = 0
        self.loaded = ()
        self.khz = 0

    def look(self):
        self.looks += 1

    def now_ns(self):
        return 33

    def load(self, *values):
        self.loaded = values

    def set_khz(self, khz):
        self.khz = khz


class Host:
    cpuid = CPUID
    sregs2 = xcrs = True
    get_xsave = uapi.GET_XSAVE2
    xsave_size = 8192
    nested_size = 8320
    can_scale = False
    events = 0x3F


class Vcpu:
    """Keeps what it is given and says in which order that came."""

    number = 0

    def __init__(self):
        self.order = []
        self.held = {}
        self.msr = {TSC: 5, TSC_DEADLINE: 99, 0x174: 7}

    def get(self, request, size):
        self.order.append(name_of(request))
        name = name_of(request).replace("GET_", "").removesuffix("2")
        return self.held.get(name, b"").ljust(size, b"\0")

    def set(self, request, data):
        self.order.append(name_of(request))
        self.held[name_of(request).replace("SET_", "").removesuffix("2")] = data

    def set_cpuid(self, entries):
        self.order.append("CPUID")
        self.held["cpuid"] = entries

    def nested_state(self, most):
        self.order.append("KVM_GET_NESTED_STATE")
        return uapi.NESTED_HEAD.pack(0, 1, 128)

    def msrs(self, indices):
        found = []
        for index in indices:
            if index not in self.msr:
                break
            found.append(self.msr[index])
        return found

    def set_msrs(self, values):
        self.order += [f"MSR {index:#x}" for index, _ in values]
        self.msr.update(values)
        return len(values)


def box(vcpu, cpuid=CPUID):
    return VcpuBox(vcpu, cpuid, Msrs([TSC, TSC_DEADLINE, 0x174], 0), Clock(), Host())


def test_vcpu_is_loaded_in_the_order_that_the_kernel_needs():
    state = box(Vcpu()).save_state()
    vcpu = Vcpu()
    other = box(vcpu, [])
    other.check_against(state)
    other.load_state(state)
    assert vcpu.order == [
        "CPUID",
        "KVM_SET_SREGS2",
        "KVM_SET_XCRS",
        "KVM_SET_XSAVE",
        f"MSR {TSC:#x}",
        "MSR 0x174",
        "KVM_SET_REGS",
        "KVM_SET_LAPIC",
        f"MSR {TSC_DEADLINE:#x}",
        "KVM_SET_DEBUGREGS",
        "KVM_SET_VCPU_EVENTS",
        "KVM_SET_MP_STATE",
        "KVM_SET_NESTED_STATE",
    ]
    assert other._clock.tscs == [777]


def test_reset_leaves_a_guest_of_the_guest_before_anything_is_set():
    fresh = box(Vcpu()).save_state()
    vcpu = Vcpu()
    used = box(vcpu)
    used.leave_nested(fresh)
    assert vcpu.order == ["KVM_SET_NESTED_STATE"]
    assert vcpu.held["KVM_NESTED_STATE"] == fresh.nested


def test_start_up_messages_that_wait_are_acted_upon_before_anything_is_read():
    vcpu = Vcpu()
    box(vcpu).save_state()
    assert vcpu.order[0] == "KVM_GET_MP_STATE"


def test_cpuid_that_is_set_is_not_set_again():
    state = box(Vcpu()).save_state()
    vcpu = Vcpu()
    box(vcpu).load_state(state)
    assert "CPUID" not in vcpu.order


def test_vcpu_survives_its_record():
    state = box(Vcpu()).save_state()
    again = load(KvmVcpuState, 1, save(state))
    assert again == state
    assert len(again.xsave) == 8192


@pytest.mark.parametrize(("runs", "left"), [(0, 100), (1, 60)])
def test_timer_that_goes_on_in_the_kernel_stands_still_until_the_guest_runs(runs, left):
    at = uapi.LAPIC_TIMER_LEFT_AT
    lapic = bytearray(uapi.LAPIC_SIZE)
    state = box(Vcpu()).save_state()
    lapic[at], state.lapic = 60, bytes(lapic[:at]) + b"\x64" + bytes(lapic[at + 1 :])
    vcpu = Vcpu()
    other = box(vcpu)
    other.load_state(state)
    vcpu.held["KVM_LAPIC"] = bytes(lapic)
    other._clock.runs += runs
    assert other.save_state().lapic[at] == left


class Vm:
    def __init__(self):
        self.chips = {n: bytes([n]) * 512 for n in range(3)}
        self.timer = b"\7" * uapi.PIT_STATE2.size
        self.order = []

    def irqchip(self, chip):
        return self.chips[chip]

    def set_irqchip(self, chip, data):
        self.order.append(chip)
        self.chips[chip] = data

    def pit(self):
        return self.timer

    def set_pit(self, data):
        self.order.append("pit")
        self.timer = data


class Made:
    def __init__(self):
        self.vm = Vm()
        self.vcpus = []


def test_chips_and_clocks_cross_together():
    made, clock = Made(), Clock()
    state = VmBox(made, clock, None, pit=True).save_state()
    assert (clock.looks, state.clock_ns, state.stopped_ns, state.now_ns) == (1, 11, 22, 33)
    other = Made()
    taker = VmBox(other, clock, None, pit=True)
    taker.check_against(state)
    taker.load_state(state)
    assert other.vm.order == [0, 1, 2, "pit"]
    assert clock.loaded == (11, 22, 33)


@pytest.mark.parametrize("name", ["pic_master", "pic_slave", "ioapic", "pit"])
def test_chip_of_another_size_is_refused(name):
    taker = VmBox(Made(), Clock(), None, pit=True)
    state = VmBox(Made(), Clock(), None, pit=True).save_state()
    setattr(state, name, b"short")
    with pytest.raises(StateInvalidError, match=rf"kvm-vm\.{name}: 5 bytes, expected"):
        taker.check_against(state)


def test_timer_that_is_not_here_is_refused():
    state = VmBox(Made(), Clock(), None, pit=True).save_state()
    with pytest.raises(StateInvalidError, match=r"kvm-vm\.pit: 112 bytes, expected 0"):
        VmBox(Made(), Clock(), None, pit=False).check_against(state)


MODEL = KvmModelState(vcpus=2, cpu="host", irqchip="kernel", pit=True, tsc_khz=2_000_000, mce=10)


@pytest.mark.parametrize(
    ("name", "value"),
    [("vcpus", 3), ("cpu", "EPYC"), ("irqchip", "split"), ("pit", False), ("mce", 9)],
)
def test_other_vcpus_are_refused(name, value):
    other = KvmModelState(**{**{n: getattr(MODEL, n) for n in MODEL.state_fields}, name: value})
    with pytest.raises(StateInvalidError, match=rf"kvm-model\.{name}: the guest has"):
        ModelBox(MODEL, Host(), Clock()).check_against(other)


def test_tsc_of_another_frequency_is_scaled_where_the_host_can():
    theirs = KvmModelState(
        vcpus=2, cpu="host", irqchip="kernel", pit=True, tsc_khz=3_000_000, mce=10
    )
    clock, here = Clock(), Host()
    with pytest.raises(StateInvalidError, match="cannot scale"):
        ModelBox(MODEL, here, clock).check_against(theirs)
    here.can_scale = True
    taker = ModelBox(MODEL, here, clock)
    taker.check_against(theirs)
    taker.load_state(theirs)
    assert clock.khz == 3_000_000
    assert taker.save_state().tsc_khz == 3_000_000


@pytest.mark.parametrize(("name", "value"), [("vcpus", 0), ("irqchip", "none")])
def test_model_that_cannot_be_is_refused(name, value):
    with pytest.raises(StateInvalidError):
        load(KvmModelState, 1, {**save(MODEL), name: value})


def test_reset_states_are_whole():
    for cls in (KvmModelState, KvmVmState, KvmVcpuState):
        cls().check()
