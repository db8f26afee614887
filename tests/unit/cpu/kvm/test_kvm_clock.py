"""kvmclock and TSCs on a made-up host: they never part, never go back, and hide the pause or show it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpu.kvm import clock, msrs, uapi
from instar.cpu.kvm.clock import GuestClock

MASK = (1 << 64) - 1
SECOND = 1_000_000_000


class Host:
    """Time passes with each request."""

    def __init__(self, khz=2_000_000, flags=uapi.CLOCK_HOST_TSC, offsets=True, boot=SECOND):
        self.ns = boot
        self.khz = khz
        self.flags = flags
        self.offsets = offsets
        self.kvmclock_from = self.ns

    def tsc(self):
        self.ns += 700  # a request takes its time
        return self.ns * self.khz // 1_000_000


class Vm:
    def __init__(self, host):
        self.host = host

    def clock(self):
        tsc = self.host.tsc()
        return self.host.ns - self.host.kvmclock_from, self.host.flags, 0, tsc

    def set_clock(self, ns):
        self.host.ns += 900
        self.host.kvmclock_from = self.host.ns - ns


class Vcpu:
    def __init__(self, host, offset=0, deadline=0):
        self.host = host
        self.offset = offset
        self.deadline = deadline
        self.armed = []
        self.told = 0

    def has_tsc_offset(self):
        return self.host.offsets

    def tsc_khz(self):
        return self.host.khz

    def tsc_offset(self):
        return self.offset & MASK

    def set_tsc_offset(self, offset):
        self.host.ns += 300
        self.offset = offset

    def guest_tsc(self):
        return self.host.tsc() + self.offset & MASK

    def msrs(self, indices):
        return [self.guest_tsc() if i == msrs.TSC else self.deadline for i in indices]

    def set_msrs(self, values):
        for index, value in values:
            if index == msrs.TSC:
                self.offset = value - self.host.tsc()
            else:
                self.armed.append(value)
        return len(values)

    def clock_was_stopped(self):
        self.told += 1


@pytest.fixture(autouse=True)
def _host_time(monkeypatch):
    """The host's clocks are those of the made-up host of the test."""
    monkeypatch.setattr(clock, "time_ns", lambda: Current.host.ns)
    monkeypatch.setattr(clock, "monotonic_ns", lambda: Current.host.ns)


class Current:
    host = Host()


def guest(host, offsets=(0,), shown=False):
    Current.host = host
    vcpus = [Vcpu(host, offset) for offset in offsets]
    return GuestClock(Vm(host), vcpus, shown=shown), vcpus


def drift(host, made, vcpu):
    """By how much TSC and kvmclock disagree, in ns."""
    ns, *_ = made._vm.clock()
    return abs(ns - vcpu.guest_tsc() * 1_000_000 // host.khz)


HOSTS = st.builds(
    Host,
    khz=st.integers(1_000_000, 5_000_000),
    flags=st.sampled_from([0, uapi.CLOCK_HOST_TSC, uapi.CLOCK_HOST_TSC | uapi.CLOCK_REALTIME]),
    offsets=st.booleans(),
)


@given(host=HOSTS, pauses=st.lists(st.integers(0, 100 * SECOND), min_size=1, max_size=8))
@settings(max_examples=50)
def test_pause_is_hidden_from_both_clocks(host, pauses):
    made, (vcpu,) = guest(host)
    made.start()
    for pause in pauses:
        host.ns += 5_000
        before, tsc = made._vm.clock()[0], vcpu.guest_tsc()
        made.stop()
        host.ns += pause
        made.start()
        assert 0 <= made._vm.clock()[0] - before < 50_000
        assert 0 <= (vcpu.guest_tsc() - tsc & MASK) * 1_000_000 // host.khz < 50_000


@given(host=HOSTS, pause=st.integers(0, 100 * SECOND))
@settings(max_examples=50)
def test_pause_is_shown_by_both_clocks(host, pause):
    made, (vcpu,) = guest(host, shown=True)
    made.start()
    before, tsc = made._vm.clock()[0], vcpu.guest_tsc()
    made.stop()
    host.ns += pause
    made.start()
    assert 0 <= made._vm.clock()[0] - before - pause < 50_000
    assert 0 <= (vcpu.guest_tsc() - tsc & MASK) * 1_000_000 // host.khz - pause < 50_000


def test_many_pauses_do_not_make_the_clocks_part():
    host = Host()
    made, (vcpu,) = guest(host)
    vcpu.offset = -host.ns * host.khz // 1_000_000  # both begin at 0
    made.start()
    at_first = drift(host, made, vcpu)
    for _ in range(1000):
        made.stop()
        host.ns += 12_345_678
        made.start()
    assert abs(drift(host, made, vcpu) - at_first) < 2_000


@pytest.mark.parametrize("slow", [0, 1, 2])
def test_look_at_the_clocks_that_is_interrupted_is_not_the_one_that_counts(monkeypatch, slow):
    host = Host(flags=0)
    made, (vcpu,) = guest(host)
    vcpu.offset = -host.ns * host.khz // 1_000_000  # both begin at 0
    late = iter(
        [0, *(SECOND * (n == slow) for n in range(3))]
    )  # the first only asks for the flags
    look = made._vm.clock

    def interrupted():
        found = look()
        host.ns += next(late)
        return found

    made.start()
    monkeypatch.setattr(made._vm, "clock", interrupted)
    made.stop()
    assert abs(made.clock_ns - made.tscs[0] * 1_000_000 // host.khz) < 3_000


def test_tscs_keep_their_distance():
    host = Host()
    made, (one, two) = guest(host, (100, 5_000_100))
    made.start()
    made.stop()
    host.ns += SECOND
    made.start()
    assert two.offset - one.offset == 5_000_000


def test_clocks_of_another_program_go_on_here():
    host = Host()
    made, (vcpu,) = guest(host)
    made.load(clock_ns=50 * SECOND, looked_ns=1, now_ns=7)
    made.tscs[0] = 123 << 32
    assert made.now_ns() == 7
    made.start()
    assert 0 <= made._vm.clock()[0] - 50 * SECOND < 20_000
    assert 0 <= vcpu.guest_tsc() - (123 << 32) < 40_000
    assert made.now_ns() >= 7
    assert not made.fresh


def test_wall_clock_that_was_set_back_does_not_turn_the_guests_back():
    host = Host()
    made, (vcpu,) = guest(host, shown=True)
    made.load(clock_ns=SECOND, looked_ns=host.ns + 1000 * SECOND, now_ns=0)
    made.start()
    assert made._vm.clock()[0] >= SECOND
    assert vcpu.guest_tsc() < host.khz * 1_000


def test_deadline_of_a_timer_is_set_anew_once_the_tsc_is_right():
    made, (vcpu,) = guest(Host())
    vcpu.deadline = 4711
    made.start()
    made.stop()
    made.start()
    assert vcpu.armed == [4711]


def test_first_start_touches_nothing():
    made, (vcpu,) = guest(Host())
    made.start()
    made.start()
    assert (vcpu.offset, vcpu.told, vcpu.armed) == (0, 0, [])


def test_guest_is_told_of_each_stop():
    made, vcpus = guest(Host(), (0, 0))
    made.start()
    for _ in range(3):
        made.stop()
        made.stop()
        made.start()
    assert [vcpu.told for vcpu in vcpus] == [3, 3]


def test_look_at_running_clocks_does_not_stop_them():
    host = Host()
    made, _ = guest(host)
    made.start()
    made.look()
    seen = made.clock_ns, made.now_ns()
    host.ns += 1000
    assert made.now_ns() == seen[1] + 1000
    made.look()
    assert made.clock_ns > seen[0]


def test_virtual_time_stands_still_with_the_machine():
    host = Host()
    made, _ = guest(host)
    assert made.now_ns() == 0
    made.start()
    host.ns += 500
    assert made.now_ns() == 500
    made.stop()
    stood = made.now_ns()
    host.ns += SECOND
    assert made.now_ns() == stood


def test_clock_at_its_end_goes_on_at_its_beginning(monkeypatch):
    host = Host()
    vm = Vm(host)
    given = []
    monkeypatch.setattr(vm, "set_clock", given.append)
    guest = GuestClock(vm, [Vcpu(host)], shown=True)
    guest.load(MASK, 1, 0)  # what a damaged state may say, and a kernel takes 64 bits
    guest.start()
    assert 0 <= given[0] < MASK


def test_tscs_that_a_guest_set_apart_are_the_same_after_a_reset():
    host = Host()
    vcpus = [Vcpu(host), Vcpu(host, offset=123_456)]
    guest = GuestClock(Vm(host), vcpus, shown=False)
    guest.start()
    guest.stop()
    assert guest.tscs[0] != guest.tscs[1]
    guest.level()
    guest.start()
    assert vcpus[0].offset == vcpus[1].offset
