"""MSRs are what the kernel lists and what it can read."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpu.kvm.msrs import TSC, Msrs, knows, name_of
from instar.errors import HostError


class Vcpu:
    """Reads what it has up to the first that it lacks, as the kernel does; some take no value."""

    number = 3

    def __init__(self, held, fixed=()):
        self.held = dict(held)
        self.fixed = fixed
        self.asked = 0

    def msrs(self, indices):
        assert len(indices) <= 255
        self.asked += 1
        found = []
        for index in indices:
            if index not in self.held:
                break
            found.append(self.held[index])
        return found

    def set_msrs(self, values):
        for n, (index, value) in enumerate(values):
            if index in self.fixed or index not in self.held:
                return n
            self.held[index] = value
        return len(values)


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
@settings(max_examples=50)
def test_what_can_be_read_is_read_and_the_rest_forgotten(listed, held):
    msrs, vcpu = Msrs(sorted(listed), 0), Vcpu({index: index * 7 for index in held})
    found = dict(zip(*msrs.read(vcpu), strict=True))
    assert found == {index: index * 7 for index in listed & held - {TSC}}
    asked = vcpu.asked
    assert dict(zip(*msrs.read(vcpu), strict=True)) == found
    assert vcpu.asked == asked + (1 if found else 0)


def test_more_than_the_kernel_takes_at_once_come_in_parts():
    indices = range(0x1000, 0x1000 + 600)
    msrs, vcpu = Msrs(indices, 0), Vcpu(dict.fromkeys(indices, 9))
    assert msrs.read(vcpu) == (list(indices), [9] * 600)
    Msrs(indices, 0).write(vcpu, [(index, 4) for index in indices])
    assert set(vcpu.held.values()) == {4}


@pytest.mark.parametrize(
    ("vendor", "found"),
    [("AuthenticAMD", 0x89ABCDEF), ("GenuineIntel", 0xFFFFFE0089ABCDEF)],
)
def test_stack_of_sysenter_has_what_the_kernel_would_take(vendor, found):
    vcpu = Vcpu({0x174: 0x1234, 0x175: 0xFFFFFE0089ABCDEF})
    assert Msrs([0x174, 0x175], 0, vendor=vendor).read(vcpu) == ([0x174, 0x175], [0x1234, found])


def test_what_moves_with_the_hosts_time_is_not_read():
    assert not {0x40000010, 0x40000020, TSC} & set(Msrs([0x40000010, 0x40000020, TSC], 0).indices)


def test_banks_of_machine_checks_are_read_as_many_as_there_are():
    msrs = Msrs([], 0x1000102)
    assert [index for index in msrs.indices if 0x400 <= index < 0x480] == list(range(0x400, 0x408))


def test_register_for_branch_records_is_read_where_the_kernel_does_not_list_it():
    assert Msrs([], 0).read(Vcpu({0x1D9: 1})) == ([0x1D9], [1])


def test_register_that_acknowledges_an_interrupt_is_never_written_back():
    assert 0x4B564D07 not in Msrs([0x4B564D07, 0x174], 0).indices


def test_value_that_is_not_taken_is_refused_by_name():
    vcpu = Vcpu({0x174: 0, 0x1A0: 1, 0x175: 0}, fixed=[0x1A0])
    with pytest.raises(HostError, match="vCPU 3: the kernel refused 0x5 for IA32_MISC_ENABLE"):
        Msrs([], 0).write(vcpu, [(0x174, 1), (0x1A0, 5), (0x175, 2)])
    assert vcpu.held == {0x174: 1, 0x1A0: 1, 0x175: 0}


def test_fixed_register_that_has_the_value_already_is_fine():
    vcpu = Vcpu({0x174: 0, 0x1A0: 5, 0x175: 0}, fixed=[0x1A0])
    Msrs([], 0).write(vcpu, [(0x174, 1), (0x1A0, 5), (0x175, 2)])
    assert vcpu.held == {0x174: 1, 0x1A0: 5, 0x175: 2}


def test_names_are_the_manuals_where_there_is_one():
    assert name_of(0x6E0) == "IA32_TSC_DEADLINE"
    assert name_of(0xDEAD) == "MSR 0xdead"


def test_register_is_known_if_it_can_be_read():
    assert knows(Vcpu({7: 0}), 7)
    assert not knows(Vcpu({7: 0}), 8)


def test_clocks_are_not_among_what_is_read():
    assert Msrs([0x10, 0x11, 0x40000020], 0).indices[0] == 0x11
    assert not {0x10, 0x40000010, 0x40000020} & set(Msrs([0x40000010, 0x40000020], 0).indices)
