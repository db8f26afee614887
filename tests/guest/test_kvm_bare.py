"""A bare guest on /dev/kvm: devices, interrupts, and its state in a VM made anew, as after exec."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from kvm_guests import (
    AP_PORT,
    DATA,
    PORT,
    READ_TSC,
    START_AP,
    STRINGS,
    TIMER,
    TRIPLE_FAULT,
    Devices,
    Machine,
    boot_long,
    boot_protected,
    boot_real,
    checksums,
    from_port,
    loop64,
    new_ram,
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
    machine.stop()
    assert machine.wishes == ["reset"]
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


def test_guest_goes_on_exactly_across_exec():
    done = subprocess.run(
        [sys.executable, CHILD], capture_output=True, text=True, check=True, timeout=60
    )
    said = {int(port): values for port, values in json.loads(done.stdout).items()}
    for port in (PORT, AP_PORT):
        assert len(said[port]) >= 40
        assert said[port] == checksums(len(said[port]))
