"""The registers of a virtio-mmio slot, driven as a guest does and as no guest should."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr import state as cpr_state
from instar.cpr.errors import StateInvalidError
from instar.devices.virtio_blk import VirtioBlk
from instar.devices.virtio_mmio import EmptySlot, VirtioMmio, VirtioMmioState
from instar.devices.virtio_rng import VirtioRng
from instar.errors import GuestError
from instar.testing.fakes import RAM_BASE, FakeBlock, FakeEntropy, FakeIrq, make_space
from instar.testing.virtio_driver import VirtioDriver
from instar.virtio import features as f
from instar.virtio.device import VirtioDevice

BASE = 0x1000_1000
READY = f.ACKNOWLEDGE | f.DRIVER | f.FEATURES_OK | f.DRIVER_OK


class Picky(VirtioDevice):
    """A device that does not want its configuration written."""

    __slots__ = ()
    device_id = 42

    def write_config(self, offset, _data) -> None:
        raise GuestError(f"configuration written at {offset}")


class Slot:
    """A slot with an entropy device, and its guest."""

    def __init__(self, device=None) -> None:
        self.space = make_space()
        self.irq = FakeIrq()
        self.device = device or VirtioRng(FakeEntropy(), state_id="virtio-rng/0")
        self.mmio = VirtioMmio(self.device, self.space.memory, self.irq, "virtio-mmio/0")
        self.space.add_mmio(BASE, 0x1000, self.mmio, "virtio-mmio")
        self.driver = VirtioDriver(self.space, BASE, RAM_BASE + 0x1000)


@pytest.fixture
def slot() -> Slot:
    return Slot()


def test_virtio_4_2_2_identity(slot):
    assert [slot.driver.read(offset) for offset in (0, 4, 8, 12)] == [
        0x74726976,
        2,
        4,
        0x54534E49,
    ]


def test_virtio_4_2_2_2_empty_slot_has_device_id_0():
    slot = EmptySlot()
    slot.mmio_write(0x70, 4, 1)
    assert [slot.mmio_read(offset, 4) for offset in (0, 4, 8, 0x70)] == [0x74726976, 2, 0, 0]
    assert slot.mmio_read(0, 1) == 0


def test_initialisation_agrees_and_serves(slot):
    features = slot.driver.start()
    assert features == f.VERSION_1 | f.INDIRECT_DESC | f.EVENT_IDX | f.RING_RESET
    assert slot.driver.status == READY
    assert slot.driver.request(5).data == bytes(range(5))
    assert slot.irq.level
    assert slot.driver.acknowledge() == 1
    assert not slot.irq.level


def test_virtio_6_1_without_version_1_features_ok_stays_clear(slot):
    assert slot.driver.negotiate(wanted=f.EVENT_IDX) == 0
    assert not slot.driver.status & f.FEATURES_OK


def test_virtio_2_2_2_feature_not_offered_features_ok_stays_clear(slot):
    slot.driver.write(0x24, 0)
    slot.driver.write(0x20, 1)
    slot.driver.write(0x24, 1)
    slot.driver.write(0x20, 1)
    slot.driver.write(0x70, f.FEATURES_OK)
    assert slot.driver.status == 0


def test_features_after_features_ok_are_ignored(slot):
    agreed = slot.driver.negotiate(wanted=f.VERSION_1)
    slot.driver.write(0x24, 0)
    slot.driver.write(0x20, 0xFFFF_FFFF)
    assert slot.mmio.features == agreed == f.VERSION_1


def test_feature_word_beyond_the_second_is_0(slot):
    slot.driver.write(0x14, 2)
    slot.driver.write(0x24, 2)
    slot.driver.write(0x20, 7)
    assert slot.driver.read(0x10) == 0
    assert slot.mmio.state.features == 0


def test_virtio_2_1_1_status_bits_are_not_cleared_one_by_one(slot):
    slot.driver.write(0x70, 3)
    slot.driver.write(0x70, 1)
    assert slot.driver.status == 3


def test_driver_ok_without_features_ok_needs_reset(slot):
    slot.driver.write(0x70, f.DRIVER_OK)
    assert slot.driver.status == f.NEEDS_RESET


def test_reset_forgets_queues_and_lowers_the_line(slot):
    slot.driver.start()
    slot.driver.request(5)
    slot.driver.write(0x70, 0)
    assert (slot.driver.status, slot.irq.level, slot.driver.read(0x60)) == (0, False, 0)
    slot.driver.write(0x30, 0)
    assert slot.driver.read(0x44) == 0


def test_notification_before_driver_ok_is_ignored(slot):
    slot.driver.negotiate()
    slot.driver.add_queue()
    slot.driver.add(5)
    slot.driver.kick()
    assert slot.driver.collect() == []


@pytest.mark.parametrize("index", [1, 0xFFFF_FFFF])
def test_notification_of_a_queue_that_is_not_there_is_ignored(slot, index):
    slot.driver.start()
    slot.driver.kick(index)
    assert slot.driver.status == READY


def test_queue_that_is_not_there_reads_0_and_ignores_writes(slot):
    slot.driver.write(0x30, 7)
    slot.driver.write(0x38, 8)
    slot.driver.write(0x80, 8)
    slot.driver.write(0x44, 1)
    assert (slot.driver.read(0x34), slot.driver.read(0x44)) == (0, 0)


def test_queue_size_max_is_told(slot):
    assert slot.driver.read(0x34) == 64


def test_queue_in_use_keeps_its_addresses_and_size(slot):
    slot.driver.start()
    before = cpr_state.save(slot.mmio.state)["queues"]
    slot.driver.write(0x80, 0x1234)
    slot.driver.write(0x38, 4)
    assert cpr_state.save(slot.mmio.state)["queues"] == before


def test_queue_ready_0_stops_the_queue(slot):
    slot.driver.start()
    slot.driver.write(0x44, 0)
    slot.driver.add(5)
    slot.driver.kick()
    assert (slot.driver.read(0x44), slot.driver.collect()) == (0, [])


def test_virtio_2_6_1_queue_reset_allows_another_size(slot):
    slot.driver.start(size=8)
    slot.driver.write(0xC0, 1)
    assert (slot.driver.read(0xC0), slot.driver.read(0x44)) == (0, 0)
    slot.driver.rings = []
    slot.driver.add_queue(16)
    assert slot.driver.request(3).data == b"\0\1\2"


def test_queue_reset_not_negotiated_is_ignored(slot):
    slot.driver.start(wanted=f.VERSION_1)
    slot.driver.write(0xC0, 1)
    assert slot.driver.read(0x44) == 1


@pytest.mark.parametrize("size", [0, 3, 128])
def test_queue_of_bad_size_needs_reset(slot, size):
    slot.driver.negotiate()
    slot.driver.add_queue(size)
    assert slot.driver.needs_reset
    assert slot.mmio.state.faults == 1


def test_virtio_2_1_2_fault_after_driver_ok_interrupts_with_configuration_change(slot):
    slot.driver.start()
    slot.driver.offer(99)
    slot.driver.kick()
    assert slot.driver.needs_reset
    assert slot.driver.acknowledge() == 2


def test_device_that_needs_reset_serves_nothing_until_reset(slot):
    slot.driver.start()
    slot.driver.offer(99)
    slot.driver.kick()
    slot.driver.kick()
    assert slot.mmio.state.faults == 1
    slot.driver.start()
    assert slot.driver.request(2).data == b"\0\1"


def test_config_changed_counts_and_interrupts(slot):
    slot.driver.start()
    before = slot.driver.read(0xFC)
    slot.mmio.config_changed()
    assert (slot.driver.read(0xFC), slot.driver.acknowledge()) == (before + 1, 2)


def test_config_changed_before_driver_ok_is_silent(slot):
    slot.mmio.config_changed()
    assert not slot.irq.level


@pytest.mark.parametrize("offset", [0xB0, 0xB4, 0xB8, 0xBC])
def test_virtio_4_2_2_shared_memory_does_not_exist(slot, offset):
    slot.driver.write(0xAC, 3)
    assert slot.driver.read(offset) == 0xFFFF_FFFF


@pytest.mark.parametrize(("size", "value"), [(1, 64), (2, 64), (4, 64), (8, 64)])
def test_config_space_is_read_in_any_width(size, value):
    slot = Slot(VirtioBlk(FakeBlock(), state_id="virtio-blk/0"))
    assert slot.driver.config(0, size) == value
    assert slot.driver.read(0x100 + 0x80, size) == 0


def test_guest_fault_in_a_configuration_write_needs_reset():
    slot = Slot(Picky("picky/0"))
    slot.driver.start(queues=0)
    slot.driver.write(0x104, 1)
    assert slot.driver.needs_reset


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 8), (2, 4), (0x71, 1), (0x3F0, 2)])
def test_register_access_of_wrong_width_does_nothing(slot, offset, size):
    slot.driver.write(offset, 0xFF, size)
    assert slot.driver.read(offset, size) == 0
    assert slot.driver.status == 0


def test_load_of_another_device_is_refused(slot):
    with pytest.raises(StateInvalidError, match="0 queues"):
        slot.mmio.check_against(VirtioMmioState())


def test_load_with_a_feature_not_offered_is_refused(slot):
    slot.driver.start()
    state = cpr_state.load(VirtioMmioState, 1, cpr_state.save(slot.mmio.state))
    state.features |= 1
    with pytest.raises(StateInvalidError, match="0x1, which this device does not offer"):
        Slot().mmio.check_against(state)


def test_load_with_a_queue_too_large_is_refused(slot):
    slot.driver.start()
    state = cpr_state.load(VirtioMmioState, 1, cpr_state.save(slot.mmio.state))
    state.queues[0].size = 128
    with pytest.raises(StateInvalidError, match="larger than 64"):
        Slot().mmio.check_against(state)


@pytest.mark.parametrize("change", [{"status": 4}, {"status": 8, "features": 0}])
def test_state_that_contradicts_itself_is_refused(slot, change):
    with pytest.raises(StateInvalidError):
        cpr_state.load(VirtioMmioState, 1, cpr_state.save(slot.mmio.state) | change)


def test_load_midway_goes_on_as_the_old_slot(slot):
    slot.driver.start()
    slot.driver.request(3)
    record = cpr_state.save(slot.mmio.state)
    new = VirtioMmio(slot.device, slot.space.memory, slot.irq, "virtio-mmio/0")
    new.load_state(cpr_state.load(VirtioMmioState, 1, record))
    slot.irq.level = False
    new.post_load()
    slot.space.mmio[0].device = new
    assert slot.irq.level
    assert slot.driver.request(2).data == b"\3\4"
    assert cpr_state.save(slot.mmio.state) == record


def test_slots_are_state_handles_and_queues():
    assert set(VirtioMmio.__slots__) == {"state"} | {"device", "memory", "irq", "state_id"} | {
        "queues"
    }


register = st.one_of(
    st.sampled_from([0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x64, 0x70, 0xC0, 0x120]),
    st.sampled_from([0x80, 0x84, 0x90, 0x94, 0xA0, 0xA4]),
    st.integers(0, 0x1FF),
)
value = st.one_of(
    st.integers(0, 16), st.sampled_from([64, 0x80, 0xFFFF_FFFF, RAM_BASE + 0x1000, 1 << 64])
)
access = st.tuples(register, value, st.sampled_from([4, 4, 4, 1, 2, 8]))


@settings(max_examples=60, deadline=None)
@given(st.lists(access, max_size=30), st.booleans(), st.booleans())
def test_any_register_writes_leave_a_slot_that_works_after_reset(accesses, start, disk):
    block = VirtioBlk(FakeBlock(), state_id="virtio-blk/0")
    slot = Slot(block if disk else None)
    slot.driver.start() if start else None
    for offset, number, size in accesses:
        slot.driver.write(offset, number, size)
        assert 0 <= slot.driver.read(offset, size) < 1 << 8 * size
    state = cpr_state.load(VirtioMmioState, 1, cpr_state.save(slot.mmio.state))
    assert state == slot.mmio.state
    slot.driver.start()
    answer = slot.driver.request(*([struct.pack("<IIQ", 0, 0, 1), 512, 1] if disk else [1]))
    assert answer.length == (513 if disk else 1)


part = st.one_of(st.binary(min_size=1, max_size=40), st.integers(1, 600))
raw = st.tuples(
    st.integers(0, 9),
    st.one_of(st.integers(RAM_BASE, RAM_BASE + 0x2000), st.integers(0, (1 << 64) - 1)),
    st.sampled_from([0, 1, 16, 17, 512, 0xFFFF_FFFF]),
    st.integers(0, 15),
    st.integers(0, 9),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(raw, max_size=6), st.lists(st.integers(0, 9), max_size=9), st.booleans())
def test_any_chains_end_answered_or_with_a_device_that_needs_reset(descriptors, heads, hold):
    block = FakeBlock()
    block.hold = hold
    slot = Slot(VirtioBlk(block, state_id="virtio-blk/0"))
    slot.driver.start()
    ring = slot.driver.rings[0]
    for index, gpa, size, flags, following in descriptors:
        slot.driver.put_desc(ring.desc, index, gpa, size, flags, following)
    for head in heads:
        slot.driver.offer(head)
    slot.driver.kick()
    block.finish()
    (queue,) = slot.mmio.state.queues
    assert slot.driver.needs_reset or (queue.in_flight == [] and queue.next_used == len(heads))
