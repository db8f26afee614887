"""The balloon: what a guest may give back, and what happens to one that offers nonsense."""

from __future__ import annotations

import mmap
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr import state as cpr_state
from instar.devices.virtio_balloon import BalloonState, VirtioBalloon
from instar.devices.virtio_balloon.state import UNKNOWN
from instar.devices.virtio_mmio import VirtioMmio
from instar.machine.balloon import RamPages
from instar.memory import AddressSpace, RamBlock
from instar.testing.fakes import RAM_BASE, FakeIrq
from instar.testing.virtio_driver import WRITE, VirtioDriver

BASE = 0x1000_1000
INFLATE, DEFLATE, STATS, REPORTING = range(4)
FIRST = RAM_BASE >> 12
FREE = 128  # first page that the driver does not use itself
PAGES = 256


class Machine:
    def __init__(self, *, reporting: bool = True) -> None:
        self.space = AddressSpace()
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        ram = mmap.mmap(-1, PAGES * 4096, private)
        self.space.add_ram(RAM_BASE, RamBlock("ram", ram, fd=-1, share=False, adopted=False))
        self.changes = 0
        self.written: list[tuple[int, int]] = []
        self.space.memory.on_write(lambda gpa, length: self.written.append((gpa, length)))
        self.device = VirtioBalloon(
            RamPages(self.space),
            self.change,
            deflate_on_oom=True,
            reporting=reporting,
            state_id="virtio-balloon/0",
        )
        self.mmio = VirtioMmio(self.device, self.space.memory, FakeIrq(), "virtio-mmio/0")
        self.space.add_mmio(BASE, 0x1000, self.mmio, "virtio-mmio")
        self.driver = VirtioDriver(self.space, BASE, RAM_BASE + 0x1000, 0x7_0000)
        self.driver.start(queues=4)
        for page in range(FREE, PAGES):
            self.space.memory.write((FIRST + page) << 12, bytes([page]) * 4096)
        self.written.clear()

    def change(self) -> None:
        self.changes += 1

    def kept(self) -> set[int]:
        """Pages that still have their bytes."""
        return {
            page for page in range(FREE, PAGES)
            if self.space.memory.read((FIRST + page) << 12, 4096) == bytes([page]) * 4096
        }  # fmt: skip


@pytest.fixture
def machine() -> Machine:
    return Machine()


def numbers(*pages: int) -> bytes:
    return struct.pack(f"<{len(pages)}I", *(FIRST + page for page in pages))


def test_inflated_pages_are_gone_and_no_others_and_the_cpu_knows(machine):
    machine.driver.request(numbers(200, 131, 130, 132), queue=INFLATE)
    assert set(range(FREE, PAGES)) - machine.kept() == {130, 131, 132, 200}
    assert ((FIRST + 130) << 12, 3 * 4096) in machine.written


def test_deflated_pages_are_left_alone(machine):
    machine.driver.request(numbers(130), queue=DEFLATE)
    assert len(machine.kept()) == PAGES - FREE


@pytest.mark.parametrize("page", [-1, PAGES, 0xFFFF_FFFF - FIRST])
def test_page_outside_ram_is_the_guests_fault(machine, page):
    machine.driver.add(numbers(page), queue=INFLATE)
    machine.driver.kick(INFLATE)
    assert machine.driver.needs_reset
    assert len(machine.kept()) == PAGES - FREE


@pytest.mark.parametrize("data", [b"abc", b"abcde", bytes(4 * 4097)])
def test_wrong_number_of_pages_is_the_guests_fault(machine, data):
    machine.driver.add(data, queue=INFLATE)
    machine.driver.kick(INFLATE)
    assert machine.driver.needs_reset


def test_reported_pages_are_gone_whole_ones_only(machine):
    ring = machine.driver.rings[REPORTING]
    machine.driver.put_desc(ring.desc, 0, ((FIRST + 140) << 12) + 1, 3 * 4096, WRITE, 0)
    machine.driver.offer(0, queue=REPORTING)
    machine.driver.kick(REPORTING)
    assert set(range(FREE, PAGES)) - machine.kept() == {141, 142}


def test_report_that_was_not_agreed_on_is_the_guests_fault():
    machine = Machine(reporting=False)
    machine.driver.add(4096, queue=REPORTING)
    machine.driver.kick(REPORTING)
    assert machine.driver.needs_reset


def test_target_is_shown_and_the_answer_is_told(machine):
    machine.device.set_target(7)
    assert machine.driver.acknowledge() == 2
    assert machine.driver.config(0, 4) == 7
    machine.driver.write(0x104, 5)
    machine.driver.write(0x100, 99)
    assert (machine.device.state.actual, machine.device.state.target, machine.changes) == (5, 7, 1)


def test_statistics_are_read_and_asked_for_again(machine):
    machine.driver.add(struct.pack("<HQHQ", 4, 1000, 77, 1), queue=STATS)
    machine.driver.kick(STATS)
    assert (machine.device.state.stats[4], machine.device.state.stats[5]) == (1000, UNKNOWN)
    assert machine.driver.collect(STATS) == []
    machine.device.ask_stats()
    assert len(machine.driver.collect(STATS)) == 1
    machine.device.ask_stats()  # before the guest has filled it again
    assert (machine.driver.collect(STATS), machine.driver.needs_reset) == ([], False)


def test_too_many_statistics_are_the_guests_fault(machine):
    machine.driver.add(bytes(5000), queue=STATS)
    machine.driver.kick(STATS)
    assert machine.driver.needs_reset


def test_reset_keeps_the_target_and_forgets_the_rest(machine):
    machine.device.set_target(7)
    machine.driver.write(0x104, 5)
    machine.driver.write(0x70, 0)
    assert machine.device.state == BalloonState(target=7, stats=[UNKNOWN] * 10)


def test_update_keeps_target_answer_and_the_buffer_of_statistics(machine):
    machine.driver.add(struct.pack("<HQ", 4, 1000), queue=STATS)
    machine.driver.kick(STATS)
    machine.device.set_target(7)
    record = cpr_state.save(machine.device.save_state())
    after = VirtioBalloon(
        RamPages(machine.space),
        machine.change,
        deflate_on_oom=True,
        reporting=True,
        state_id="virtio-balloon/0",
    )
    after.load_state(cpr_state.load(BalloonState, 1, record))
    mmio = VirtioMmio(after, machine.space.memory, FakeIrq(), "virtio-mmio/0")
    mmio.load_state(machine.mmio.save_state())
    mmio.post_load()
    after.ask_stats()
    assert (after.state.target, after.state.stats[4]) == (7, 1000)
    assert len(machine.driver.collect(STATS)) == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=64)), max_size=6))
def test_hostile_bytes_never_touch_what_was_not_named(script):
    machine = Machine()
    for queue, data in script:
        if machine.driver.needs_reset:
            break
        machine.driver.add(data or b"\0", queue=queue)
        machine.driver.kick(queue)
        machine.driver.collect(queue)
    assert len(machine.kept()) == PAGES - FREE
