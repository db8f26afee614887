"""What of KVM's structures is the guest's, and what only the host's."""

from instar.cpu.kvm import uapi
from instar.cpu.kvm.boxes import without_times
from instar.cpu.kvm.msrs import TSC, Msrs


def test_pit_without_the_hosts_times_keeps_everything_else():
    given = bytes(range(1, 113))
    found = without_times(given)
    assert len(found) == uapi.PIT_STATE2.size
    for channel in range(3):
        start = 24 * channel
        assert found[start : start + 16] == given[start : start + 16]
        assert found[start + 16 : start + 24] == bytes(8)
    assert found[72:] == given[72:]
    assert without_times(found) == found


def test_tsc_is_not_among_the_registers_but_the_clocks_business():
    assert TSC not in Msrs([TSC, 0x174], 0).indices
