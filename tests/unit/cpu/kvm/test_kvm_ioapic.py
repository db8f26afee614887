"""The IOAPIC outside the kernel: which messages lines become."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpu.kvm import uapi
from instar.cpu.kvm.ioapic import Ioapic
from instar.cpu.kvm.routes import Routes

SELECT, WINDOW, EOI = 0x00, 0x10, 0x40
MASKED, LEVEL, REMOTE = 1 << 16, 1 << 15, 1 << 14


class Vm:
    """Takes messages and routes."""

    def __init__(self):
        self.sent = []
        self.routes = []
        self.taken = 1

    def signal_msi(self, address, data):
        self.sent.append((address, data))
        return self.taken

    def set_routes(self, entries):
        self.routes = [uapi.ROUTING_MSI.unpack(entry) for entry in entries]


class Rig:
    def __init__(self):
        self.vm = Vm()
        self.chip = Ioapic(self.vm, Routes(self.vm, split=True))

    def put(self, register, value):
        self.chip.mmio_write(SELECT, 4, register)
        self.chip.mmio_write(WINDOW, 4, value)

    def get(self, register):
        self.chip.mmio_write(SELECT, 4, register)
        return self.chip.mmio_read(WINDOW, 4)

    def entry(self, pin, low, high=0):
        self.put(0x11 + 2 * pin, high)
        self.put(0x10 + 2 * pin, low)


def test_edge_interrupts_once_each_time_it_rises():
    rig = Rig()
    rig.entry(4, 0x31)
    for level in (True, True, False, True):
        rig.chip.set_line(4, level)
    assert rig.vm.sent == [(0xFEE00000, 0x4031)] * 2


def test_level_interrupts_again_after_each_acknowledgement_while_it_is_driven():
    rig = Rig()
    rig.entry(9, LEVEL | 0x55)
    rig.chip.set_line(9, True)
    rig.chip.set_line(9, True)
    assert len(rig.vm.sent) == 1
    assert rig.get(0x10 + 18) & REMOTE
    rig.chip.end_of_interrupt(0x54)
    assert len(rig.vm.sent) == 1
    rig.chip.end_of_interrupt(0x55)
    assert len(rig.vm.sent) == 2
    rig.chip.set_line(9, False)
    rig.chip.mmio_write(EOI, 4, 0x55)
    assert len(rig.vm.sent) == 2
    assert not rig.get(0x10 + 18) & REMOTE


def test_masked_level_waits_until_it_may_and_a_masked_edge_is_lost():
    rig = Rig()
    rig.entry(5, MASKED | LEVEL | 0x40)
    rig.chip.set_line(5, True)
    rig.chip.set_line(6, True)
    assert rig.vm.sent == []
    rig.entry(5, LEVEL | 0x40)
    rig.entry(6, 0x41)
    assert rig.vm.sent == [(0xFEE00000, LEVEL | 0x4040)]


def test_level_that_is_masked_while_a_lapic_has_it_is_acknowledged_all_the_same():
    rig = Rig()
    rig.entry(9, LEVEL | 0x55)
    rig.chip.set_line(9, True)
    rig.entry(9, LEVEL | MASKED | 0x55)
    assert [route[0] for route in rig.vm.routes] == [9]  # else the kernel would not tell
    rig.chip.end_of_interrupt(0x55)
    assert rig.vm.routes == []
    assert len(rig.vm.sent) == 1
    rig.entry(9, LEVEL | 0x55)
    assert len(rig.vm.sent) == 2
    assert rig.get(0x10 + 18) == LEVEL | REMOTE | 0x55


def test_masked_level_that_is_not_driven_any_more_says_nothing():
    rig = Rig()
    rig.entry(5, LEVEL | MASKED | 0x40)
    rig.chip.set_line(5, True)
    rig.chip.set_line(5, False)
    rig.entry(5, LEVEL | 0x40)
    assert rig.vm.sent == []


def test_level_that_nobody_took_is_not_waited_for():
    rig = Rig()
    rig.vm.taken = 0
    rig.entry(5, LEVEL | 0x40)
    rig.chip.set_line(5, True)
    assert not rig.get(0x10 + 10) & REMOTE
    rig.vm.taken = 1
    rig.chip.set_line(5, True)
    assert rig.get(0x10 + 10) & REMOTE


def test_message_has_destination_and_mode():
    rig = Rig()
    rig.entry(1, 1 << 11 | 1 << 8 | LEVEL | 0x77, 0x03000000)
    rig.chip.set_line(1, True)
    assert rig.vm.sent == [(0xFEE03004, LEVEL | 0x4000 | 0x177)]


def test_kernel_knows_the_messages_of_lines_that_may_interrupt():
    rig = Rig()
    rig.entry(1, 0x31)
    rig.entry(2, LEVEL | 0x32)
    rig.entry(3, MASKED | 0x33)
    assert [(route[0], route[6]) for route in rig.vm.routes] == [(1, 0x4031), (2, LEVEL | 0x4032)]
    rig.entry(1, MASKED | 0x31)
    assert [route[0] for route in rig.vm.routes] == [2]


def test_registers_are_the_data_sheets():
    rig = Rig()
    assert rig.get(1) == 0x170020
    rig.put(0, 0x0F000000)
    assert rig.get(0) == rig.get(2) == 0x0F000000
    assert rig.get(0x10) == MASKED
    assert rig.get(0x40) == 0
    assert rig.chip.mmio_read(SELECT, 4) == 0x40
    assert rig.chip.mmio_read(0x20, 4) == 0


def test_status_bits_are_not_the_guests_to_write():
    rig = Rig()
    rig.entry(0, LEVEL | REMOTE | 1 << 12 | MASKED | 0x20, 0xFFFFFFFF)
    assert rig.get(0x10) == LEVEL | MASKED | 0x20
    assert rig.get(0x11) == 0xFF000000


@given(st.lists(st.tuples(st.integers(0, 0xFF), st.integers(0, (1 << 32) - 1)), max_size=30))
@settings(max_examples=30)
def test_state_goes_on_in_another_one(writes):
    rig, again = Rig(), Rig()
    for register, value in writes:
        rig.put(register, value)
    rig.chip.set_line(3, True)
    everything = [bytes([255]) * 1024]
    again.chip.load(rig.chip.save(everything))
    assert again.chip.save(everything) == rig.chip.save(everything)
    assert again.vm.routes == rig.vm.routes


@given(st.binary(min_size=512, max_size=512))
@settings(max_examples=30)
def test_any_state_is_taken_without_a_fault(chip):
    rig = Rig()
    rig.chip.load(chip)
    for pin in range(24):
        rig.chip.set_line(pin, True)
        rig.chip.end_of_interrupt(pin)


def lapic(**vectors):
    """Registers of a LAPIC that has these vectors."""
    regs = bytearray(1024)
    for name, vector in vectors.items():
        at = {"isr": 0x100, "irr": 0x200}[name] + vector // 32 * 16
        regs[at : at + 4] = (1 << vector % 32).to_bytes(4, "little")
    return bytes(regs)


@pytest.mark.parametrize("register", ["isr", "irr"])
@pytest.mark.parametrize("vector", [0x20, 0x55, 0xFF])
def test_level_whose_acknowledgement_is_in_the_kernel_is_sent_again(register, vector):
    rig = Rig()
    rig.entry(9, LEVEL | vector)
    rig.chip.set_line(9, True)
    assert rig.chip.waits()
    waiting, done = Rig(), Rig()
    waiting.chip.load(rig.chip.save([lapic(**{register: vector})]))
    done.chip.load(rig.chip.save([lapic(**{register: vector ^ 1}), lapic()]))
    assert (waiting.chip.waits(), done.chip.waits()) == (True, False)
    for each in (waiting, done):
        each.chip.set_line(9, True)
    assert (waiting.vm.sent, len(done.vm.sent)) == ([], 1)
    assert rig.chip.waits()  # the one before goes on as it was, should it have to


def test_acknowledged_interrupt_before_an_update_is_sent_again_after_it():
    rig, again = Rig(), Rig()
    rig.entry(9, LEVEL | 0x55)
    rig.chip.set_line(9, True)
    again.chip.load(rig.chip.save([lapic(), lapic(isr=0x55)]))
    assert again.vm.sent == []
    again.chip.set_line(9, True)  # the device drives its line again
    assert again.vm.sent == []
    again.chip.end_of_interrupt(0x55)
    assert len(again.vm.sent) == 1


def test_reset_masks_everything():
    rig = Rig()
    rig.entry(4, 0x31)
    rig.chip.reset()
    rig.chip.set_line(4, True)
    assert rig.vm.sent == []
    assert rig.vm.routes == []


@pytest.mark.parametrize("register", [0x10, 0x3F])
def test_first_and_last_entry_are_there(register):
    rig = Rig()
    rig.put(register, 0xAB000041)
    assert rig.get(register) in (0x41, 0xAB000000)
