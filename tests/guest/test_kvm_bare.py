"""A bare guest on /dev/kvm: devices, interrupts, and its state in a VM made anew, as after exec."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from harness import MICROVM, PROGRAM
from instar.cpr.errors import CprError
from instar.cpu.kvm import uapi
from instar.cpu.kvm.look import registers_of as named_registers
from instar.errors import InstarError
from kvm_guests import (
    AP_PORT,
    APIC,
    CODE,
    DATA,
    LINE_5,
    MASKING_HANDLER,
    PORT,
    READ_TSC,
    START_AP,
    STRINGS,
    TIMER,
    TRIPLE_FAULT,
    VECTOR,
    Devices,
    Machine,
    boot_long,
    boot_protected,
    boot_real,
    checksums,
    from_port,
    loop64,
    new_ram,
    put,
)

BOOTS = [boot_real, boot_protected, boot_long]
CHILD = Path(__file__).resolve().parents[1] / "kvm_exec_child.py"


@pytest.fixture
def devices():
    return Devices()


@pytest.fixture
def ram():
    with new_ram() as memory:
        yield memory


def renew(machine: Machine, ram, devices: Devices, **options: bool) -> Machine:
    """Stop, and go on in another VM."""
    machine.stop()
    records = machine.save()
    machine.close()
    again = Machine(ram, devices, vcpus=machine.vcpus.count, **options)
    again.load(records)
    again.start()
    return again


@pytest.mark.parametrize("boot", BOOTS)
def test_guest_in_any_mode_computes_and_talks_to_devices(boot, ram, devices):
    machine = Machine(ram, devices)
    boot(machine, ram)
    machine.start()
    devices.wait_for(50)
    machine.stop()
    machine.close()
    said = devices.said[PORT]
    assert said == checksums(len(said))


@pytest.mark.parametrize("boot", BOOTS)
def test_guest_in_any_mode_goes_on_exactly_in_another_vm(boot, ram, devices):
    machine = Machine(ram, devices)
    boot(machine, ram)
    machine.start()
    for n in range(5):
        devices.wait_for(10 * n + 10)
        machine = renew(machine, ram, devices)
    devices.wait_for(60)
    machine.stop()
    machine.close()
    said = devices.said[PORT]
    assert said == checksums(len(said))


def test_guest_stopped_at_random_moments_ends_with_the_right_checksum(ram, devices):
    dice = random.Random(6)
    machine = Machine(ram, devices)
    boot_long(machine, ram)
    machine.start()
    for n in range(200):
        devices.wait_for(n + dice.randrange(3))
        for _ in range(dice.randrange(3)):  # stop and go without saving
            machine.stop()
            machine.start()
        machine = renew(machine, ram, devices)
    devices.wait_for(210)
    machine.stop()
    machine.close()
    said = devices.said[PORT]
    assert said == checksums(len(said))


def test_string_instructions_stopped_half_way_lose_and_repeat_nothing(ram, devices):
    machine = Machine(ram, devices)
    boot_long(machine, ram, STRINGS)
    machine.start()
    for n in range(30):
        devices.wait_for(100 * n + 7 * n)
        machine = renew(machine, ram, devices)
    machine.stop()
    machine.close()
    said = devices.said[PORT]
    assert said == [from_port(k) for k in range(1, len(said) + 1)]


def test_two_vcpus_go_on_exactly_in_another_vm(ram, devices):
    machine = Machine(ram, devices, vcpus=2)
    boot_long(machine, ram, START_AP + loop64(PORT, 0xF000))
    machine.start()
    devices.wait_for(5, AP_PORT)
    for n in range(10):
        devices.wait_for(10 * n + 10)
        devices.wait_for(10 * n + 10, AP_PORT)
        machine = renew(machine, ram, devices)
    machine.stop()
    machine.close()
    for port in (PORT, AP_PORT):
        assert devices.said[port] == checksums(len(devices.said[port]))


def test_processor_not_started_yet_is_started_after_an_update(ram, devices):
    machine = Machine(ram, devices, vcpus=2)
    boot_long(machine, ram, START_AP + loop64(PORT, 0xF000))
    records = machine.save()
    machine.close()
    machine = Machine(ram, devices, vcpus=2)
    machine.load(records)
    machine.start()
    devices.wait_for(5)
    devices.wait_for(5, AP_PORT)
    machine.stop()
    machine.close()


def test_state_that_was_loaded_is_saved_as_it_was(ram, devices):
    machine = Machine(ram, devices)
    boot_long(machine, ram, TIMER)
    machine.start()
    devices.wait_for(5)
    machine.stop()
    records = machine.save()
    machine.close()
    again = Machine(ram, devices)
    again.load(records)
    assert again.save() == records
    again.close()


def test_timer_interrupts_go_on_after_each_update(ram, devices):
    machine = Machine(ram, devices)
    boot_long(machine, ram, TIMER)
    machine.start()
    for n in range(10):
        devices.wait_for(5 * n + 5)
        machine = renew(machine, ram, devices)
    devices.wait_for(60)
    machine.stop()
    machine.close()
    assert all(later >= sooner for sooner, later in pairwise(devices.said[PORT]))
    assert int.from_bytes(ram[DATA : DATA + 4], "little") >= 55


@pytest.fixture(params=["kernel", "split"])
def irqchip(request):
    """Where the IOAPIC is."""
    return {"split": request.param == "split"}


def test_edges_of_a_line_interrupt_once_each_also_across_updates(irqchip, ram, devices):
    machine = Machine(ram, devices, **irqchip)
    boot_long(machine, ram, LINE_5["edge"])
    machine.start()
    devices.wait_for(1)
    for n in range(1, 11):
        line = machine.vcpus.line(5)
        line(True)
        line(False)
        devices.wait_until(lambda n=n: devices.said[PORT][-1] == n)
        machine = renew(machine, ram, devices, **irqchip)
    machine.stop()
    machine.close()
    assert devices.said[PORT][-1] == 10


def test_interrupt_that_waits_while_the_guest_is_saved_comes_afterwards(irqchip, ram, devices):
    machine = Machine(ram, devices, **irqchip)
    boot_long(machine, ram, LINE_5["edge"])
    machine.start()
    devices.wait_for(1)
    for n in range(1, 6):
        machine.stop()
        line = machine.vcpus.line(5)
        line(True)
        line(False)
        records = machine.save()
        machine.close()
        machine = Machine(ram, devices, **irqchip)
        machine.load(records)
        machine.start()
        devices.wait_until(lambda n=n: devices.said[PORT][-1] == n)
    machine.stop()
    machine.close()
    assert devices.said[PORT][-1] == 5


def test_level_interrupts_until_it_is_not_driven_any_more(irqchip, ram, devices):
    machine = Machine(ram, devices, **irqchip)
    boot_long(machine, ram, LINE_5["level"])
    machine.start()
    devices.wait_for(1)
    machine.vcpus.line(5)(True)
    devices.wait_until(lambda: devices.said[PORT][-1] >= 5 or ram[DATA] >= 5)
    machine = renew(machine, ram, devices, **irqchip)
    machine.vcpus.line(5)(True)  # its device drives it again
    had = ram[DATA]
    devices.wait_until(lambda: (ram[DATA] - had) % 256 >= 5)
    machine.vcpus.line(5)(False)
    devices.wait_until(lambda: devices.said[PORT][-1] % 256 == ram[DATA])
    machine.stop()
    machine.close()


def test_level_that_is_acknowledged_while_it_is_masked_interrupts_again(irqchip, ram, devices):
    machine = Machine(ram, devices, **irqchip)
    boot_long(machine, ram, LINE_5["level"])
    put(ram, CODE + 0x800, MASKING_HANDLER)
    machine.start()
    devices.wait_for(1)
    machine.vcpus.line(5)(True)
    devices.wait_until(lambda: ram[DATA] >= 3)
    machine = renew(machine, ram, devices, **irqchip)
    machine.vcpus.line(5)(True)
    had = ram[DATA]
    devices.wait_until(lambda: (ram[DATA] - had) % 256 >= 3)
    machine.vcpus.line(5)(False)
    machine.stop()
    machine.close()


def test_event_descriptor_on_a_line_interrupts(ram, devices):
    machine = Machine(ram, devices)
    boot_long(machine, ram, LINE_5["edge"])
    fd = os.eventfd(0)
    machine.vcpus.irqfd(5, fd)
    machine.start()
    devices.wait_for(1)
    for n in range(1, 6):
        os.eventfd_write(fd, 1)
        devices.wait_until(lambda n=n: devices.said[PORT][-1] == n)
    machine.vcpus.irqfd_off(5, fd)
    os.close(fd)
    machine.stop()
    machine.close()


def test_level_of_an_event_descriptor_is_acknowledged_to_another(irqchip, ram, devices):
    machine = Machine(ram, devices, **irqchip)
    boot_long(machine, ram, LINE_5["level"])
    fd, resample = os.eventfd(0), os.eventfd(0, os.EFD_NONBLOCK)
    machine.start()
    devices.wait_for(1)
    machine.vcpus.irqfd(5, fd, resample)
    for n in range(1, 4):
        os.eventfd_write(fd, 1)
        devices.wait_until(lambda n=n: devices.said[PORT][-1] == n)
        devices.wait_until(lambda: acknowledged(resample))
    machine.vcpus.irqfd_off(5, fd)
    machine.stop()
    machine.close()
    os.close(fd)
    os.close(resample)


def acknowledged(fd: int) -> bool:
    try:
        return os.eventfd_read(fd) > 0
    except BlockingIOError:
        return False


def test_message_interrupts(ram, devices):
    machine = Machine(ram, devices)
    boot_long(machine, ram, LINE_5["edge"])
    machine.start()
    devices.wait_for(1)
    assert machine.vcpus.vm.signal_msi(0xFEE00000, 0x4040) == 1
    devices.wait_until(lambda: devices.said[PORT][-1] == 1)
    machine.vcpus.routes.set_message(24, 0xFEE00000, 0x4040)
    machine.vcpus.routes.apply()
    machine.vcpus.line(24)(True)
    devices.wait_until(lambda: devices.said[PORT][-1] == 2)
    machine.stop()
    machine.close()


def test_writes_that_an_event_descriptor_takes_do_not_come_out(ram, devices):
    machine = Machine(ram, devices)
    boot_long(machine, ram)
    fd = os.eventfd(0)
    machine.vcpus.vm.ioeventfd(PORT, 4, fd, port=True)
    machine.start()
    devices.wait_until(lambda: devices.read.get(PORT + 4, 0) >= 20)
    machine.stop()
    machine.close()
    assert PORT not in devices.said
    assert os.eventfd_read(fd) - devices.read[PORT + 4] in (0, 1)
    os.close(fd)


@pytest.mark.parametrize("ring", [0, 1024])
def test_written_pages_are_known(ring, ram, devices):
    machine = Machine(ram, devices, ring=ring)
    boot_long(machine, ram, STRINGS)
    machine.vcpus.memory.log(on=True)
    machine.start()
    devices.wait_for(200)
    machine.stop()
    ((slot, bits),) = machine.vcpus.memory.written()
    assert (slot.gpa, int.from_bytes(bits, "little") & 1 << DATA // 4096) == (0, 1 << DATA // 4096)
    ((_, bits),) = machine.vcpus.memory.written()
    assert int.from_bytes(bits, "little") == 0
    machine.start()
    devices.wait_for(len(devices.said[PORT]) + 200)
    machine.stop()
    ((_, bits),) = machine.vcpus.memory.written()
    assert int.from_bytes(bits, "little") & 1 << DATA // 4096
    machine.close()


def test_state_that_somebody_changed_is_refused_or_taken_and_nothing_else(ram, devices):
    dice = random.Random(3)
    machine = Machine(ram, devices)
    boot_long(machine, ram)
    machine.start()
    devices.wait_for(3)
    machine.stop()
    records = machine.save()
    machine.close()
    refused = 0
    again = Machine(ram, devices)
    for _ in range(300):
        refused += not loads(again, [changed(record, dice) for record in records])
    assert 50 < refused < 300
    again.load(records)  # it can still be what it should be
    again.start()
    devices.wait_for(20)
    again.stop()
    again.close()
    said = devices.said[PORT]
    assert said == checksums(len(said))


def loads(machine: Machine, records: list[dict]) -> bool:
    try:
        machine.load(records)
    except (InstarError, CprError) as e:
        assert str(e)
        return False
    return True


def changed(record: dict, dice: random.Random) -> dict:
    """The record, each fourth time with another value somewhere."""
    name = dice.choice(sorted(record))
    value = record[name]
    if dice.randrange(4) or name in ("clock_ns", "stopped_ns", "now_ns", "tsc"):
        return record
    if isinstance(value, bytes) and value:
        other = bytearray(value)
        for _ in range(dice.choice([1, 8, 64])):
            other[dice.randrange(len(other))] = dice.randrange(256)
        value = bytes(other[: dice.choice([len(other), len(other), dice.randrange(len(other))])])
    elif isinstance(value, list):
        value = [dice.choice([item, dice.getrandbits(32)]) for item in value]
    elif isinstance(value, int) and not isinstance(value, bool):
        value ^= 1 << dice.randrange(8)
    return {**record, name: value}


@pytest.mark.parametrize("shown", [False, True])
def test_tsc_never_goes_back(shown, ram, devices):
    machine = Machine(ram, devices, pause_shown=shown)
    boot_long(machine, ram, READ_TSC)
    machine.start()
    for n in range(10):
        devices.wait_for(20 * n + 20)
        machine.stop()
        machine.start()
        machine = renew(machine, ram, devices, pause_shown=shown)
    machine.stop()
    machine.close()
    said = devices.said[PORT]
    tscs = [low | high << 32 for low, high in zip(said[::2], said[1::2], strict=False)]
    assert all(later > sooner for sooner, later in pairwise(tscs))


def test_virtual_time_goes_on_where_it_was(ram, devices):
    machine = Machine(ram, devices)
    boot_long(machine, ram)
    machine.start()
    devices.wait_for(3)
    machine.stop()
    stood = machine.vcpus.now_ns()
    assert 0 < stood == machine.vcpus.now_ns()
    again = Machine(ram, devices)
    again.load(machine.save())
    machine.close()
    assert again.vcpus.now_ns() == stood
    again.start()
    assert again.vcpus.now_ns() >= stood
    again.close()


def test_triple_fault_asks_for_a_reset_and_the_guest_starts_anew(ram, devices):
    machine = Machine(ram, devices)
    boot_long(machine, ram, TRIPLE_FAULT)
    machine.start()
    devices.wait_until(lambda: machine.wishes)
    machine.expected = ["reset"]
    machine.stop()
    boot_long(machine, ram)
    machine.start()
    devices.wait_for(20)
    machine.stop()
    machine.close()
    said = devices.said[PORT]
    assert said == checksums(len(said))


def test_registers_and_translation_of_a_running_guest_are_seen(ram, devices):
    machine = Machine(ram, devices)
    boot_long(machine, ram)
    machine.start()
    devices.wait_for(2)
    registers = machine.vcpus.registers(0)
    assert next(iter(registers)) == "rip"
    assert 0x4000 <= registers["rip"] < 0x4100
    assert registers["cr3"] == 0x1000
    assert machine.vcpus.translate(0, 0x4000) == 0x4000
    assert machine.vcpus.translate(0, 1 << 40) == -1
    devices.wait_for(len(devices.said[PORT]) + 2)  # it went on
    machine.stop()
    machine.close()


def test_vcpu_that_looks_at_the_others_from_a_device_sees_them_stand_still(ram, devices):
    machine = Machine(ram, devices, vcpus=2)
    looks = []

    def look(port, _size, value):
        with devices.lock:  # as the machine's lock, which the other one may wait for
            devices.said.setdefault(port, []).append(value)
            other = 1 if port == PORT else 0
            looks.append(machine.vcpus.parked(lambda: rip_twice(machine.vcpus.vcpus[other])))

    devices.pio_write = look
    boot_long(machine, ram, START_AP + loop64(PORT, 0xF000))
    machine.start()
    devices.wait_for(20)
    devices.wait_for(20, AP_PORT)
    machine.stop()
    machine.close()
    assert all(first == again for first, again in looks)
    for port in (PORT, AP_PORT):
        assert devices.said[port] == checksums(len(devices.said[port]))


def rip_twice(vcpu):
    return [named_registers(vcpu)["rip"] for _ in range(2)]


def test_guest_goes_on_exactly_across_exec():
    done = subprocess.run(
        [sys.executable, CHILD], capture_output=True, text=True, check=True, timeout=60
    )
    said = {int(port): values for port, values in json.loads(done.stdout).items()}
    for port in (PORT, AP_PORT):
        assert len(said[port]) >= 40
        assert said[port] == checksums(len(said[port]))


def test_interrupt_for_no_processor_is_dropped(ram, devices):
    machine = Machine(ram, devices, split=True)
    vcpu, chip = machine.vcpus.vcpus[0], machine.vcpus.ioapic
    sregs = bytearray(vcpu.get(uapi.GET_SREGS, uapi.SREGS_SIZE))
    *control, _ = uapi.CONTROL.unpack_from(sregs, uapi.CONTROL_AT)
    uapi.CONTROL.pack_into(sregs, uapi.CONTROL_AT, *control, APIC)  # off
    vcpu.set(uapi.SET_SREGS, bytes(sregs))
    for register, value in ((0x19, 0xFF000000), (0x18, VECTOR)):  # line 4, to everybody
        chip.mmio_write(0x00, 4, register)
        chip.mmio_write(0x10, 4, value)
    chip.set_line(4, True)
    machine.close()


def test_elf_kernel_with_a_pvh_note_is_entered_in_32_bit_mode_with_its_start_information(tmp_path):
    code = bytes.fromhex(
        "8b033d78c56e33"  # mov eax, [ebx]; cmp eax, the magic of the start information
        "0f94c00fb6c0"  # sete al; movzx eax, al
        "83c029"  # add eax, 41
        "48"  # dec eax; in 64-bit mode a prefix
        "66ba0105eef4"  # mov dx, 0x501; out dx, al; hlt
    )
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen", 0x100000)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    at = 64 + 2 * 56
    kernel = tmp_path / "kernel"
    kernel.write_bytes(
        head
        + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
        + struct.pack("<IIQQQQQQ", 1, 5, at, 0x100000, 0x100000, len(code), len(code), 1)
        + struct.pack("<IIQQQQQQ", 4, 4, at + len(code), 0, 0, len(note), len(note), 4)
        + code
        + note
    )
    words = (*("-machine", MICROVM.board), *MICROVM.words, "-m", "4", "-nodefaults", "-no-reboot")
    done = subprocess.run([PROGRAM, *words, "-kernel", kernel], timeout=60, check=False)
    assert done.returncode == 41
