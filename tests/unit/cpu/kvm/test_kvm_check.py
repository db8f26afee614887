"""States of vCPUs against what a host takes: nothing is cut, nothing is taken that the host lacks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kvm_hosts import EVERYTHING, host

from instar.cpr.errors import StateInvalidError
from instar.cpu.kvm import check, uapi
from instar.cpu.kvm.msrs import Msrs
from instar.cpu.kvm.state import KvmVcpuState

CPUID = host(EVERYTHING)


class FakeHost:
    """A host of these facts."""

    def __init__(self, **facts):
        self.cpuid = CPUID
        self.sregs2 = True
        self.xcrs = True
        self.xsave_size = 4096
        self.nested_size = 0
        self.can_scale = False
        self.events = 0x3F
        for name, value in facts.items():
            setattr(self, name, value)


class FakeVcpu:
    """It can read these MSRs."""

    def __init__(self, *known):
        self.known = known

    def msrs(self, indices):
        return [0 for index in indices if index in self.known]


def xsave(components):
    area = bytearray(4096)
    uapi.U64.pack_into(area, 512, components)
    return bytes(area)


def xcrs(*pairs, flags=0):
    head = uapi.XCRS_HEAD.pack(len(pairs), flags)
    rows = b"".join(uapi.XCR.pack(number, 0, value) for number, value in pairs)
    return (head + rows).ljust(uapi.XCRS_SIZE, b"\0")


def vcpu(**changes):
    """A state that FakeHost takes, but for the changes."""
    fields = {
        "cpuid": check.pack_cpuid(CPUID),
        "regs": bytes(uapi.REGS.size),
        "sregs": bytes(uapi.SREGS2_SIZE),
        "sregs_from": "SREGS2",
        "xcrs": xcrs((0, 7)),
        "xsave": xsave(7),
        "debugregs": bytes(uapi.DEBUGREGS_SIZE),
        "msr_indices": [0x175, 0x174],
        "msr_values": [5, 6],
        "lapic": bytes(uapi.LAPIC_SIZE),
        "events": bytes(uapi.EVENTS_SIZE),
        **changes,
    }
    return KvmVcpuState(**fields)


def verdict(state, facts=None, known=()):
    """What is wrong with a state; "" if it is taken."""
    try:
        state.check()
        here = FakeHost(**facts or {})
        check.vcpu("kvm-vcpu/0", state, here, Msrs([0x175, 0x174], 0), FakeVcpu(*known))
        check.features("kvm-vcpu/0", state.cpuid, here)
    except StateInvalidError as e:
        return str(e)
    return ""


def test_state_of_this_host_is_taken():
    assert verdict(vcpu()) == ""


@pytest.mark.parametrize("name", ["regs", "sregs", "xcrs", "debugregs", "lapic", "events"])
@pytest.mark.parametrize("more", [-1, 1])
def test_structure_of_another_size_is_refused(name, more):
    data = getattr(vcpu(), name)
    changed = data[:more] if more < 0 else data + bytes(more)
    assert f"kvm-vcpu/0.{name}: {len(changed)} bytes, expected" in verdict(vcpu(**{name: changed}))


def test_longer_extended_state_is_taken_if_the_rest_is_zero():
    assert verdict(vcpu(xsave=xsave(7) + bytes(4096))) == ""
    assert "the rest is not zero" in verdict(vcpu(xsave=xsave(7) + bytes(4095) + b"\1"))


@given(st.binary(max_size=64), st.integers(0, 16), st.integers(0, 80))
@settings(max_examples=50)
def test_sized_structure_loses_nothing_that_was_taken(data, zeros, size):
    long = data[:size] + bytes(zeros)
    check.longest("x", long, size)
    assert len(check.sized(long, size)) == size
    assert check.sized(long, size).rstrip(b"\0") == data[:size].rstrip(b"\0")


def test_component_that_the_host_lacks_is_refused():
    assert "components 0x20000 of the extended state" in verdict(vcpu(xsave=xsave(7 | 1 << 17)))
    assert "kvm-vcpu/0.xcrs: has components 0x40000" in verdict(vcpu(xcrs=xcrs((0, 7 | 1 << 18))))
    assert "no extended control registers" in verdict(vcpu(), {"xcrs": False})


def test_control_registers_that_say_too_many_or_flags_are_refused():
    raw = bytearray(xcrs((0, 7)))
    uapi.XCRS_HEAD.pack_into(raw, 0, 17, 0)
    assert "17 registers, limit 16" in verdict(vcpu(xcrs=bytes(raw)))
    assert "flags 4" in verdict(vcpu(xcrs=xcrs((0, 7), flags=4)))


def test_feature_that_the_host_lacks_is_refused_by_name():
    lesser = host(" ".join(f for f in EVERYTHING.split() if f not in ("aes", "vaes")))
    said = verdict(vcpu(), {"cpuid": lesser})
    assert said == "kvm-vcpu/0.cpuid: the guest uses aes, vaes, which this host lacks"


def test_many_missing_features_are_not_all_listed():
    assert "and more, which this host lacks" in verdict(vcpu(), {"cpuid": host("fpu")})


def test_register_that_is_not_here_is_refused_unless_it_holds_nothing():
    state = vcpu(msr_indices=[0x175, 0xC0000103], msr_values=[1, 2])
    assert verdict(state) == "kvm-vcpu/0: the guest uses TSC_AUX (0x2), which this host lacks"
    assert verdict(state, known=[0xC0000103]) == ""
    assert verdict(vcpu(msr_indices=[0xC0000103], msr_values=[0])) == ""


def test_register_lists_that_do_not_belong_together_are_refused():
    assert "1 values of 2 registers" in verdict(vcpu(msr_values=[1]))
    assert "a register twice" in verdict(vcpu(msr_indices=[1, 1]))


def test_event_flags_that_this_kernel_does_not_know_are_refused():
    events = bytearray(uapi.EVENTS_SIZE)
    events[uapi.EVENTS_FLAGS_AT] = uapi.EVENT_TRIPLE_FAULT
    assert verdict(vcpu(events=bytes(events))) == ""
    assert "flags 0x20, this kernel takes 0x1f" in verdict(
        vcpu(events=bytes(events)), {"events": 0x1F}
    )


def test_special_registers_change_their_structure_if_nothing_is_lost():
    old = vcpu(sregs=bytes(uapi.SREGS_SIZE), sregs_from="")
    assert len(check.sregs_for(old, sregs2=True)) == uapi.SREGS2_SIZE
    assert len(check.sregs_for(vcpu(), sregs2=False)) == uapi.SREGS_SIZE
    assert verdict(vcpu(), {"sregs2": False}) == ""


def test_special_registers_that_this_kernel_cannot_take_are_refused():
    pae = bytearray(uapi.SREGS2_SIZE)
    pae[uapi.SREGS_TAIL_AT] = uapi.SREGS2_PDPTRS_VALID
    assert "page directory pointers" in verdict(vcpu(sregs=bytes(pae)), {"sregs2": False})


def test_interrupt_to_inject_is_said_by_the_events_where_special_registers_do_not():
    waiting = bytearray(uapi.SREGS_SIZE)
    waiting[-1] = 0x80
    state = vcpu(sregs=bytes(waiting), sregs_from="")
    assert verdict(state) == ""
    assert check.sregs_for(state, sregs2=True) == bytes(uapi.SREGS2_SIZE)


def nested(flags, size, length=None):
    return uapi.NESTED_HEAD.pack(flags, 1, size).ljust(size if length is None else length, b"\0")


def test_guest_that_runs_a_guest_needs_a_host_that_can():
    running = nested(uapi.NESTED_GUEST_MODE, 4224)
    assert verdict(vcpu(nested=running), {"nested_size": 8320}) == ""
    assert "the guest runs a guest (4224 bytes), this host takes 0" in verdict(
        vcpu(nested=running)
    )
    assert verdict(vcpu(nested=nested(0, 128))) == ""


def test_nested_state_that_lies_about_its_size_is_refused():
    assert "200 bytes, says 4224" in verdict(vcpu(nested=nested(0, 4224, 200)[:200]))
    assert "at least 128" in verdict(vcpu(nested=b"12345"))


@pytest.mark.parametrize(
    ("theirs", "ours", "scale"),
    [
        (2_596_138, 2_596_138, False),
        (2_596_138, 2_596_400, False),  # the same crystal, measured again
        (2_596_138, 3_000_000, True),
    ],
)
def test_tsc_frequency_is_the_hosts_or_scaled(theirs, ours, scale):
    check.tsc(theirs, ours, can_scale=scale)


def test_tsc_frequency_that_the_host_cannot_have_is_refused():
    with pytest.raises(StateInvalidError, match="2596138 kHz, this host's at 2600000 kHz"):
        check.tsc(2_596_138, 2_600_000, can_scale=False)


@given(st.lists(st.tuples(*[st.integers(0, (1 << 32) - 1)] * 7), max_size=5))
@settings(max_examples=30)
def test_cpuid_entries_are_packed_and_back(entries):
    assert check.unpack_cpuid(check.pack_cpuid(entries)) == entries


@given(st.data())
@settings(max_examples=60)
def test_any_bytes_are_taken_or_refused_with_a_sentence(data):
    name = data.draw(st.sampled_from(["cpuid", "sregs", "xcrs", "xsave", "events", "nested"]))
    said = verdict(vcpu(**{name: data.draw(st.binary(max_size=600))}), {"nested_size": 8320})
    assert said == "" or said.startswith("kvm-vcpu")


@pytest.mark.parametrize("mp_state", [0, 3, 10])
def test_mp_state_of_the_kernel_is_taken(mp_state):
    assert verdict(vcpu(mp_state=mp_state)) == ""


def test_mp_state_that_does_not_exist_is_refused():
    assert "mp_state: 11, limit 10" in verdict(vcpu(mp_state=11))
