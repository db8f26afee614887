"""Exits of a vCPU, served on bytes laid out as the kernel would."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpu.kvm import uapi
from instar.cpu.kvm.exits import Exits
from instar.errors import HostError, InternalBugError

DATA_AT = 4096


class Devices:
    """Remembers accesses; reads count up, or nobody answers."""

    def __init__(self, answers=()):
        self.seen = []
        self.answers = list(answers)

    def mmio_read(self, gpa, size):
        self.seen.append(("read", gpa, size))
        return self.answers.pop(0) if self.answers else -1

    def mmio_write(self, gpa, size, value):
        self.seen.append(("write", gpa, size, value))
        return 0

    def pio_read(self, port, size):
        return self.mmio_read(port, size)

    def pio_write(self, port, size, value):
        return self.mmio_write(port, size, value)


class Events:
    def __init__(self):
        self.seen = []

    def wants_reset(self):
        self.seen.append("reset")

    def wants_shutdown(self):
        self.seen.append("shutdown")

    def end_of_interrupt(self, vector):
        self.seen.append(vector)

    def dirty_ring_full(self):
        self.seen.append("full")


def shared(reason, layout=None, *values):
    """What a vCPU shares with the kernel after an exit."""
    run = bytearray(3 * 4096)
    uapi.RUN_EXIT.pack_into(run, uapi.RUN_EXIT_AT, reason, 0, 0, 0)
    if layout:
        layout.pack_into(run, uapi.RUN_UNION_AT, *values)
    return run


def serve(run, answers=()):
    devices, events = Devices(answers), Events()
    Exits(run, devices, events).serve()
    return devices.seen, events.seen


def memory(gpa, data, size, write):
    return shared(uapi.EXIT_MMIO, uapi.RUN_MMIO, gpa, data, size, write)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_store_to_a_device_arrives_with_its_size(size):
    run = memory(0xD0000000, b"\x11\x22\x33\x44\x55\x66\x77\x88", size, 1)
    seen, _ = serve(run)
    assert seen == [("write", 0xD0000000, size, 0x8877665544332211 & (1 << 8 * size) - 1)]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_load_where_nobody_answers_is_all_ones(size):
    run = memory(0xD0000000, bytes(8), size, 0)
    serve(run)
    at = uapi.RUN_MMIO_DATA_AT
    assert run[at : at + 8] == (b"\xff" * size).ljust(8, b"\0")


@given(size=st.sampled_from([3, 5, 6, 7]), data=st.binary(min_size=8, max_size=8))
@settings(max_examples=20)
def test_access_of_odd_size_goes_byte_by_byte(size, data):
    seen, _ = serve(memory(0x1FFD, data, size, 1))
    assert seen == [("write", 0x1FFD + n, 1, data[n]) for n in range(size)]
    run = memory(0x1FFD, bytes(8), size, 0)
    serve(run, list(data))
    at = uapi.RUN_MMIO_DATA_AT
    assert run[at : at + size] == data[:size]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_string_output_arrives_value_by_value(size):
    run = shared(uapi.EXIT_IO, uapi.RUN_IO, 1, size, 0x3F8, 3, DATA_AT)
    values = [(n + 1) * 0x11 for n in range(3)]
    run[DATA_AT : DATA_AT + 3 * size] = b"".join(v.to_bytes(size, "little") for v in values)
    seen, _ = serve(run)
    assert seen == [("write", 0x3F8, size, value) for value in values]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_string_input_gets_value_by_value_and_ones_where_nobody_answers(size):
    run = shared(uapi.EXIT_IO, uapi.RUN_IO, 0, size, 0x60, 3, DATA_AT)
    serve(run, [1, 2])
    ones = b"\xff" * size
    expected = (1).to_bytes(size, "little") + (2).to_bytes(size, "little") + ones
    assert run[DATA_AT : DATA_AT + 3 * size + 1] == expected + b"\0"


def test_read_never_writes_beside_its_place():
    run = memory(0xD0000000, bytes(8), 2, 0)
    serve(run, [0x12345678])  # a device that says too much
    assert run[uapi.RUN_MMIO_DATA_AT : uapi.RUN_MMIO_DATA_AT + 4] == b"\x78\x56\0\0"


def test_triple_fault_is_a_wish_for_a_reset():
    assert serve(shared(uapi.EXIT_SHUTDOWN)) == ([], ["reset"])


@pytest.mark.parametrize(
    ("kind", "wish"),
    [(uapi.SYSTEM_EVENT_RESET, "reset"), (uapi.SYSTEM_EVENT_SHUTDOWN, "shutdown")],
)
def test_system_event_is_a_wish(kind, wish):
    run = shared(uapi.EXIT_SYSTEM_EVENT, uapi.RUN_SYSTEM_EVENT, kind, 0, 0)
    assert serve(run) == ([], [wish])


def test_end_of_interrupt_comes_with_its_vector():
    run = shared(uapi.EXIT_IOAPIC_EOI)
    run[uapi.RUN_UNION_AT] = 0x31
    assert serve(run) == ([], [0x31])


def test_full_ring_is_told():
    assert serve(shared(uapi.EXIT_DIRTY_RING_FULL)) == ([], ["full"])


@pytest.mark.parametrize("reason", [uapi.EXIT_INTR, uapi.EXIT_IRQ_WINDOW_OPEN])
def test_exit_that_only_came_out_does_nothing(reason):
    assert serve(shared(reason)) == ([], [])


def test_instruction_that_kvm_does_not_know_is_shown():
    run = shared(uapi.EXIT_INTERNAL_ERROR, uapi.RUN_INTERNAL, 1, 3)
    at = uapi.RUN_UNION_AT + uapi.RUN_INTERNAL.size
    run[at : at + 8] = (1).to_bytes(8, "little")
    run[at + 8 : at + 13] = b"\x04\x66\x0f\xef\xc0"
    with pytest.raises(HostError, match=r"could not be emulated \(66 0f ef c0\); it cannot go on"):
        serve(run)


@pytest.mark.parametrize("count", [0, 2, 16, 1 << 31])
def test_internal_error_of_any_length_is_told(count):
    run = shared(uapi.EXIT_INTERNAL_ERROR, uapi.RUN_INTERNAL, 3, count)
    with pytest.raises(HostError, match="an exit came while an event was delivered"):
        serve(run)


def test_cpu_that_refuses_the_guest_is_named():
    run = shared(uapi.EXIT_FAIL_ENTRY, uapi.RUN_FAIL_ENTRY, 0x80000021, 3)
    with pytest.raises(HostError, match=r"CPU 3 refused to enter the guest .*0x80000021"):
        serve(run)


def test_exit_of_unknown_reason_says_what_the_hardware_said():
    with pytest.raises(HostError, match="hardware reason 0x7b"):
        serve(shared(uapi.EXIT_UNKNOWN, uapi.U64, 0x7B))


def test_crash_event_stops_the_vcpu():
    run = shared(uapi.EXIT_SYSTEM_EVENT, uapi.RUN_SYSTEM_EVENT, uapi.SYSTEM_EVENT_CRASH, 1, 0xBAD)
    with pytest.raises(HostError, match=r"system event 3 \(0xbad\)"):
        serve(run)


@given(st.integers(0, (1 << 32) - 1))
@settings(max_examples=50)
def test_any_exit_is_served_or_refused_by_name(reason):
    try:
        serve(shared(reason))
    except (HostError, InternalBugError) as e:
        assert str(e)


def test_exit_that_nobody_asked_for_is_named():
    with pytest.raises(InternalBugError, match="KVM_EXIT_HYPERCALL"):
        serve(shared(uapi.EXIT_HYPERCALL))
    with pytest.raises(InternalBugError, match="KVM_exit 999"):
        serve(shared(999))
