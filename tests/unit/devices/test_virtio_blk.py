"""The disk's requests, clause by clause."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.block.policy import ErrorPolicy
from instar.cpr import state as cpr_state
from instar.devices.virtio_blk import BlkState, VirtioBlk
from instar.devices.virtio_blk import device as blk
from instar.devices.virtio_mmio import VirtioMmio, VirtioMmioState
from instar.testing.fakes import RAM_BASE, FakeBlock, FakeIrq, make_space
from instar.testing.virtio_driver import VirtioDriver
from instar.virtio.features import VERSION_1

BASE = 0x1000_1000


class Machine:
    """A disk of 64 sectors and a guest that uses it."""

    def __init__(
        self, *, read_only=False, wanted=(1 << 64) - 1, policy: ErrorPolicy | None = None
    ) -> None:
        self.space = make_space()
        self.irq = FakeIrq()
        self.block = FakeBlock(read_only=read_only)
        self.policy = policy
        self.failures: list[tuple[str, int, str]] = []
        self.device = self.make_device(self.block)
        self.mmio = VirtioMmio(self.device, self.space.memory, self.irq, "virtio-mmio/0")
        self.space.add_mmio(BASE, 0x1000, self.mmio, "virtio-mmio")
        self.driver = VirtioDriver(self.space, BASE, RAM_BASE + 0x1000)
        self.features = self.driver.start(wanted)

    def make_device(self, block) -> VirtioBlk:
        def on_error(*failure) -> None:
            self.failures.append(failure)

        return VirtioBlk(
            block,
            serial="disk-one",
            state_id="virtio-blk/0",
            policy=self.policy,
            on_error=on_error,
        )

    def do(self, kind, sector, *parts, indirect=False) -> tuple[int, bytes]:
        """Return status and data of one request."""
        answer = self.driver.request(header(kind, sector), *parts, 1, indirect=indirect)
        return answer.data[-1], answer.data[:-1]

    def successor(self) -> Machine:
        """Return a machine that took over RAM, disk and the saved state of this one."""
        new = Machine(policy=self.policy)
        new.space, new.block, new.driver = self.space, self.block, self.driver
        new.device = new.make_device(self.block)
        new.mmio = VirtioMmio(new.device, new.space.memory, new.irq, "virtio-mmio/0")
        saved = cpr_state.save(self.device.save_state()), cpr_state.save(self.mmio.save_state())
        new.device.load_state(cpr_state.load(BlkState, 1, saved[0]))
        new.mmio.load_state(cpr_state.load(VirtioMmioState, 1, saved[1]))
        new.mmio.post_load()
        new.device.retry()  # the machine runs
        self.space.mmio[0].device = new.mmio
        return new


def header(kind, sector=0) -> bytes:
    return struct.pack("<IIQ", kind, 0, sector)


def ranges(sector, count, flags=0) -> bytes:
    return struct.pack("<QII", sector, count, flags)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.mark.parametrize("indirect", [False, True])
def test_write_then_read_gives_the_bytes_back(machine, indirect):
    assert machine.do(1, 2, b"a" * 512, b"b" * 512, indirect=indirect) == (0, b"")
    assert machine.block.data[1024:2048] == b"a" * 512 + b"b" * 512
    assert machine.do(0, 3, 512, indirect=indirect) == (0, b"b" * 512)


def test_virtio_2_7_4_2_framing_does_not_matter(machine):
    raw = header(1, 1) + b"x" * 512
    assert machine.driver.request(raw[:7], raw[7:20], raw[20:], 1).data == b"\0"
    assert machine.block.data[512:1024] == b"x" * 512
    answer = machine.driver.request(header(0, 1), 100, 413)
    assert answer.data == b"x" * 512 + b"\0"
    assert answer.length == 513


def test_virtio_5_2_4_configuration(machine):
    driver = machine.driver
    assert driver.config(0, 8) == 64
    assert driver.config(12, 4) == 254
    assert driver.config(20, 4) == 512
    assert driver.config(32, 1) == 1
    assert driver.config(34, 2) == 1
    assert [driver.config(offset, 4) for offset in range(36, 60, 4)] == [
        1 << 21,
        1,
        1,
        1 << 21,
        1,
        1,
    ]


def test_virtio_5_2_3_read_only_disk_offers_ro_and_no_writing_feature():
    features = Machine(read_only=True).features
    assert features & blk.F_RO
    assert not features & (blk.F_DISCARD | blk.F_WRITE_ZEROES)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [(1, [bytes(512)]), (11, [ranges(0, 1)]), (13, [ranges(0, 1)])],
)
def test_virtio_5_2_6_2_read_only_disk_answers_ioerr_to_writes(kind, parts):
    machine = Machine(read_only=True)
    assert machine.do(kind, 0, *parts) == (blk.S_IOERR, b"")
    assert machine.block.log == []


@pytest.mark.parametrize("kind", [2, 3, 5, 10, 14, 0xFFFF_FFFF])
def test_virtio_5_2_6_2_unknown_type_is_unsupported(machine, kind):
    assert machine.do(kind, 0)[0] == blk.S_UNSUPP


@pytest.mark.parametrize(
    ("sector", "length"),
    [(64, 512), (63, 1024), ((1 << 64) - 1, 512), (1 << 55, 512), (0, 511), (0, 513)],
)
def test_transfer_outside_or_not_whole_sectors_is_ioerr(machine, sector, length):
    assert machine.do(0, sector, length)[0] == blk.S_IOERR
    assert machine.do(1, sector, bytes(length))[0] == blk.S_IOERR
    assert machine.block.log == []


def test_empty_transfer_is_ok(machine):
    assert machine.do(0, 0) == (0, b"")
    assert machine.do(1, 0) == (0, b"")


def test_flush_reaches_the_back_end(machine):
    assert machine.do(4, 0) == (0, b"")
    assert machine.block.log == [("flush", 0, 0, False)]


@pytest.mark.parametrize("room", [20, 8])
def test_get_id_tells_the_serial(machine, room):
    assert machine.do(8, 0, room) == (0, b"disk-one".ljust(20, b"\0")[:room])


def test_discard_and_write_zeroes_reach_the_back_end(machine):
    assert machine.do(11, 0, ranges(1, 2))[0] == 0
    assert machine.do(13, 0, ranges(3, 1, 1))[0] == 0
    assert machine.do(13, 0, ranges(3, 0))[0] == 0
    assert machine.block.log == [("discard", 512, 1024, False), ("write-zeroes", 1536, 512, False)]


@pytest.mark.parametrize(
    ("kind", "data", "status"),
    [
        (11, ranges(0, 1, 1), blk.S_UNSUPP),
        (11, ranges(0, 1, 2), blk.S_UNSUPP),
        (13, ranges(0, 1, 2), blk.S_UNSUPP),
        (11, ranges(64, 1), blk.S_IOERR),
        (13, ranges((1 << 64) - 1, 2), blk.S_IOERR),
        (13, ranges(0, (1 << 32) - 1), blk.S_IOERR),
        (11, ranges(0, 1)[:15], blk.S_IOERR),
        (11, ranges(0, 1) * 2, blk.S_IOERR),
    ],
)
def test_virtio_5_2_6_2_bad_range_is_answered(machine, kind, data, status):
    assert machine.do(kind, 0, data)[0] == status
    assert machine.block.log == []


@pytest.mark.parametrize(
    ("error", "status"), [(errno.EIO, blk.S_IOERR), (errno.EOPNOTSUPP, blk.S_UNSUPP)]
)
def test_host_error_is_answered(machine, error, status):
    machine.block.error = error
    assert machine.do(0, 0, 512)[0] == status


def test_failed_read_claims_no_used_bytes(machine):
    assert machine.driver.request(header(0, 64), 512, 1).length == 0


def test_virtio_5_2_5_2_without_flush_writes_are_durable():
    machine = Machine(wanted=VERSION_1)
    machine.do(1, 0, bytes(512))
    assert machine.block.log == [("write", 0, 512, True)]


@pytest.mark.parametrize(("mode", "durable"), [(0, True), (1, False)])
def test_virtio_5_2_5_2_cache_mode_is_chosen_by_the_driver(machine, mode, durable):
    machine.driver.write(0x100 + 32, mode, 1)
    machine.do(1, 0, bytes(512))
    assert machine.driver.config(32, 1) == mode
    assert machine.block.log == [("write", 0, 512, durable)]


def test_configuration_is_otherwise_read_only(machine):
    machine.driver.write(0x100, 7, 8)
    assert machine.driver.config(0, 8) == 64


def test_request_without_room_for_status_needs_reset(machine):
    machine.driver.add(header(4))
    machine.driver.kick()
    assert machine.driver.needs_reset


def test_request_with_a_short_header_needs_reset(machine):
    machine.driver.add(header(4)[:15], 1)
    machine.driver.kick()
    assert machine.driver.needs_reset


def test_held_requests_are_in_flight_and_end_in_any_order(machine):
    machine.block.hold = True
    heads = [machine.driver.add(header(0, sector), 512, 1) for sector in (0, 1)]
    machine.driver.kick()
    assert machine.mmio.state.queues[0].in_flight == heads
    machine.block.finish_one(1)
    machine.block.finish_one(0)
    assert [used.head for used in machine.driver.collect()] == heads[::-1]
    assert machine.mmio.state.queues[0].in_flight == []


def test_reset_waits_for_what_is_in_flight(machine):
    machine.block.hold = True
    machine.driver.add(header(1, 0), b"z" * 512, 1)
    machine.driver.kick()
    machine.driver.write(0x70, 0)
    assert machine.block.waiting == []
    assert machine.block.data[:512] == b"z" * 512
    assert not machine.irq.level


def test_load_with_requests_in_flight_completes_each_once(machine):
    machine.block.hold = True
    machine.driver.add(header(1, 5), b"q" * 512, 1)
    machine.driver.add(header(0, 0), 512, 1)
    machine.driver.kick()
    machine.block.waiting.clear()  # the old program is gone and its requests with it
    machine.block.hold = False
    new = machine.successor()
    assert [used.data[-1] for used in machine.driver.collect()] == [0, 0]
    assert new.mmio.state.queues[0].in_flight == []
    assert new.block.data[5 * 512 : 6 * 512] == b"q" * 512
    assert new.irq.level


POLICIES = [
    # op of the guest, errno, policy, what follows
    (0, errno.EIO, ErrorPolicy(), "report"),
    (0, errno.EIO, ErrorPolicy(read="ignore"), "ignore"),
    (0, errno.EIO, ErrorPolicy(read="stop"), "stop"),
    (1, errno.ENOSPC, ErrorPolicy(), "stop"),
    (1, errno.EIO, ErrorPolicy(), "report"),
    (1, errno.EIO, ErrorPolicy(write="stop"), "stop"),
    (1, errno.ENOSPC, ErrorPolicy(write="report"), "report"),
    (4, errno.EIO, ErrorPolicy(write="ignore"), "ignore"),
]


@pytest.mark.parametrize(("kind", "error", "policy", "action"), POLICIES)
def test_failed_request_follows_the_policy(kind, error, policy, action):
    machine = Machine(policy=policy)
    machine.block.error = error
    part = {0: 512, 1: b"w" * 512, 4: b""}[kind]
    machine.driver.add(*filter(None, (header(kind, 1), part, 1)))
    machine.driver.kick()
    answered = [used.data[-1] for used in machine.driver.collect()]
    assert answered == {"report": [blk.S_IOERR], "ignore": [blk.S_OK], "stop": []}[action]
    assert machine.failures == [({0: "read", 1: "write", 4: "flush"}[kind], error, action)]
    assert machine.device.stalled == (action == "stop")


def test_stopped_request_is_tried_again_until_it_succeeds_and_completes_once():
    machine = Machine(policy=ErrorPolicy())
    machine.block.error = errno.ENOSPC
    machine.driver.add(header(1, 3), b"w" * 512, 1)
    machine.driver.kick()
    machine.device.retry()
    assert len(machine.failures) == 2
    assert machine.driver.collect() == []
    machine.block.error = 0
    machine.device.retry()
    machine.device.retry()
    assert [used.data for used in machine.driver.collect()] == [b"\0"]
    assert machine.block.data[3 * 512 : 4 * 512] == b"w" * 512
    assert machine.irq.level


def test_stopped_request_crosses_an_update_and_completes_once():
    machine = Machine(policy=ErrorPolicy())
    machine.block.error = errno.ENOSPC
    machine.driver.add(header(1, 3), b"w" * 512, 1)
    machine.driver.kick()
    second = machine.successor()
    assert second.device.stalled
    machine.block.error = 0
    third = second.successor()
    assert [used.data for used in machine.driver.collect()] == [b"\0"]
    assert not third.device.stalled
    assert machine.block.data[3 * 512 : 4 * 512] == b"w" * 512


def test_reset_forgets_stopped_requests():
    machine = Machine(policy=ErrorPolicy())
    machine.block.error = errno.ENOSPC
    machine.driver.add(header(1, 3), b"w" * 512, 1)
    machine.driver.kick()
    machine.driver.write(0x70, 0)
    machine.block.error = 0
    machine.device.retry()
    assert not machine.device.stalled
    assert machine.block.data[3 * 512 : 4 * 512] == bytes(512)


def test_resized_disk_tells_the_guest_by_a_config_interrupt(machine):
    generation = machine.driver.read(0x0FC)
    machine.block.data = bytearray(128 * 512)
    machine.device.resized()
    assert machine.driver.config(0, 8) == 128
    assert machine.driver.read(0x0FC) == generation + 1
    assert machine.driver.read(0x060) & 2
    assert machine.do(1, 127, b"n" * 512) == (0, b"")


def test_load_midway_state_is_equal_and_goes_on(machine):
    machine.driver.write(0x100 + 32, 0, 1)
    machine.do(1, 1, b"k" * 512)
    new = machine.successor()
    assert new.device.state == machine.device.state
    assert new.mmio.state == machine.mmio.state
    assert new.do(0, 1, 512) == (0, b"k" * 512)


def test_load_after_the_file_shrank_keeps_the_capacity(machine):
    state = BlkState(capacity=64)
    machine.device.load_state(state)
    machine.block.data = bytearray(32 * 512)
    assert machine.driver.config(0, 8) == 64


def test_guest_changing_a_chain_in_flight_before_load_needs_reset(machine):
    machine.block.hold = True
    head = machine.driver.add(header(0, 0), 512, 1)
    machine.driver.kick()
    machine.driver.put_desc(machine.driver.rings[0].desc, head, 0, 16, 0, 0)
    machine.successor()
    assert machine.driver.needs_reset


def test_slots_are_state_and_handles():
    handles = {
        "_on_error",
        "_policy",
        "_stalled",
        "block",
        "serial",
    }  # what is stalled is in flight: the ring's state
    assert set(VirtioBlk.__slots__) == {"state"} | handles


blob = st.one_of(
    st.binary(min_size=1, max_size=24),
    st.builds(header, st.integers(0, 15), st.integers(0, 70)),
    st.builds(ranges, st.integers(0, 70), st.integers(0, 3), st.integers(0, 3)),
    st.just(bytes(512)),
)
chain = st.lists(blob, max_size=2), st.lists(st.sampled_from([1, 20, 512, 513]), max_size=2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*chain, st.booleans()), max_size=6), st.booleans(), st.booleans())
def test_any_requests_are_answered_or_the_device_needs_reset(chains, hold, read_only):
    machine = Machine(read_only=read_only)
    machine.block.hold = hold
    for readable, writable, indirect in chains:
        parts = [*readable, *writable] or [1]
        enough = len(machine.driver.rings[0].free) >= len(parts)
        machine.driver.add(*parts, indirect=indirect) if enough else None
        machine.driver.kick()
    machine.block.finish()
    machine.driver.collect()
    assert machine.driver.needs_reset or machine.driver.rings[0].chains == {}
    assert len(machine.block.data) == 64 * 512
