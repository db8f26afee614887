"""The network card."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr import state as cpr_state
from instar.cpr.errors import StateInvalidError
from instar.devices.virtio_mmio import VirtioMmio
from instar.devices.virtio_net import NetState, make_card, pair
from instar.devices.virtio_net import device as net
from instar.testing.fakes import RAM_BASE, FakeIrq, make_space
from instar.testing.virtio_driver import VirtioDriver

BASE = 0x1000_1000
MAC = bytes.fromhex("525400123456")
OTHER = bytes.fromhex("525400999999")
GROUP = bytes.fromhex("01005e000001")
BROADCAST = b"\xff" * 6
RX, TX, CONTROL = 0, 1, 2
HEADER = bytes(pair.HEADER)


class Line:
    """A back end that takes what the test says."""

    def __init__(self, *, vnet_hdr: bool = False) -> None:
        self.vnet_hdr = vnet_hdr
        self.sent: list[tuple[bytes, bytes]] = []
        self.room = 1 << 30
        self.wakes = {"receive": 0, "transmit": 0}
        self.offload = -1
        self.active = None

    def attach(self, card) -> None:
        self.card = card

    def wake_transmit(self) -> None:
        self.wakes["transmit"] += 1

    def wake_receive(self) -> None:
        self.wakes["receive"] += 1

    def send(self, parts) -> bool:
        taken = len(self.sent) < self.room
        data = b"".join(parts)
        self.sent += [(data[:12], data[12:])] * taken
        return taken

    def use(self, *, active) -> None:
        self.active = active

    def set_offload(self, flags) -> None:
        self.offload = flags


class Machine:
    """A card and its guest."""

    def __init__(
        self,
        *,
        wanted: int = (1 << 64) - 1,
        vnet_hdr: bool = False,
        size: int = 8,
        pairs: int = 1,
    ) -> None:
        self.space = make_space()
        self.lines = [Line(vnet_hdr=vnet_hdr) for _ in range(pairs)]
        self.line = self.lines[0]
        self.card = make_card(self.lines, mac=MAC, state_id="virtio-net/0")
        self.pair = self.card.pairs[0]
        self.control = 2 * pairs
        self.irq = FakeIrq()
        self.mmio = VirtioMmio(self.card, self.space.memory, self.irq, "virtio-mmio/0")
        self.space.add_mmio(BASE, 0x1000, self.mmio, "virtio-mmio")
        self.driver = VirtioDriver(self.space, BASE, RAM_BASE + 0x1000)
        self.driver.start(wanted, queues=2 * pairs + 1, size=size)

    def offer(self, *rooms: int) -> None:
        for room in rooms:
            self.driver.add(room, queue=RX)
        self.driver.kick(RX)

    def command(self, kind: int, number: int, data: bytes) -> int:
        return self.driver.request(bytes((kind, number)) + data, 1, queue=self.control).data[0]

    def transmit(self, *frames: bytes) -> None:
        for frame in frames:
            self.driver.add(HEADER + frame, queue=TX)
        self.driver.kick(TX)


def test_virtio_5_1_4_config_shows_address_and_link():
    machine = Machine()
    assert machine.driver.config(0, 4).to_bytes(4, "little") == MAC[:4]
    assert machine.driver.config(6, 2) == 1
    machine.card.set_link(up=False)
    assert machine.driver.config(6, 2) == 0
    assert machine.driver.acknowledge() & 2


@pytest.mark.parametrize(
    ("vnet_hdr", "offered"), [(False, 0), (True, net.F_CSUM | net.F_HOST_TSO4)]
)
def test_offloads_are_offered_only_if_the_back_end_has_the_header(vnet_hdr, offered):
    features = Machine(vnet_hdr=vnet_hdr).driver.features
    assert features & (net.F_CSUM | net.F_HOST_TSO4) == offered


def test_frames_go_out_in_order_and_stay_in_the_ring_until_taken():
    machine = Machine()
    machine.line.room = 2
    machine.transmit(b"a" * 60, b"b" * 60, b"c" * 60)
    assert not machine.pair.transmit()
    assert [frame[:1] for _, frame in machine.line.sent] == [b"a", b"b"]
    assert len(machine.driver.collect(TX)) == 2
    machine.line.room = 3
    machine.pair.transmit()
    assert machine.line.sent[-1] == (HEADER, b"c" * 60)


def test_batch_ends_after_64_frames_and_says_that_there_is_more():
    machine = Machine(size=128)
    machine.transmit(*[b"x" * 14] * 100)
    assert machine.pair.transmit()
    assert len(machine.line.sent) == pair.BATCH
    assert not machine.pair.transmit()
    assert len(machine.line.sent) == 100


def test_frame_without_room_waits_and_the_guests_next_buffer_wakes_the_line():
    machine = Machine()
    assert machine.pair.room() == 0
    assert machine.pair.receive([b"f" * 60]) == 0
    before = machine.line.wakes["receive"]
    machine.offer(1600)
    assert machine.line.wakes["receive"] == before + 1
    assert machine.pair.receive([b"f" * 60, b"g" * 60]) == 1
    (answer,) = machine.driver.collect(RX)
    assert answer.data[: answer.length] == bytes(10) + b"\1\0" + b"f" * 60


def test_virtio_5_1_6_4_frame_is_spread_over_mergeable_buffers():
    machine = Machine()
    machine.offer(100, 100)
    frame = bytes(range(250))
    assert machine.pair.receive([frame]) == 0  # 262 bytes in 200: nothing is taken
    assert machine.driver.collect(RX) == []
    machine.offer(100)
    assert machine.pair.receive([frame]) == 1
    answers = machine.driver.collect(RX)
    assert [answer.length for answer in answers] == [100, 100, 62]
    data = b"".join(answer.data[: answer.length] for answer in answers)
    assert data == bytes(10) + b"\3\0" + frame


def test_driver_that_polls_finds_all_buffers_of_a_frame_or_none():
    machine = Machine()
    machine.offer(100, 100, 100)
    queue = machine.mmio.queues[RX]
    seen: list[int] = []
    memory = machine.space.memory
    memory.on_write(lambda *_: seen.append(memory.u16(queue.state.used + 2)))
    assert machine.pair.receive([bytes(250)]) == 1
    assert set(seen) == {0, 3}


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_frame_arrives_whole_whatever_the_buffers_are(data):
    vnet_hdr = data.draw(st.booleans(), "vnet_hdr")
    machine = Machine(vnet_hdr=vnet_hdr)
    machine.offer(*data.draw(st.lists(st.integers(12, 90), min_size=8, max_size=8), "rooms"))
    header = bytes(range(1, 11)) if vnet_hdr else bytes(10)
    frame = BROADCAST + data.draw(st.binary(max_size=78), "frame")
    assert machine.pair.receive([(header + b"\0\0" if vnet_hdr else b"") + frame]) == 1
    answers = machine.driver.collect(RX)
    got = b"".join(answer.data[: answer.length] for answer in answers)
    assert got == header + len(answers).to_bytes(2, "little") + frame


def test_frame_longer_than_a_buffer_that_cannot_be_merged_is_dropped_alone():
    machine = Machine(wanted=~net.F_MRG_RXBUF)
    machine.offer(100, 100)
    assert machine.pair.receive([b"l" * 200, b"s" * 50]) == 2
    (answer,) = machine.driver.collect(RX)
    assert answer.length == 62
    assert machine.card.dropped == 1


def test_header_of_the_back_end_reaches_the_guest_with_the_count_of_buffers():
    machine = Machine(vnet_hdr=True)
    machine.offer(1600)
    machine.pair.receive([bytes(range(1, 11)) + b"zz" + b"f" * 60])
    (answer,) = machine.driver.collect(RX)
    assert answer.data[:12] == bytes(range(1, 11)) + b"\1\0"
    assert machine.line.offload == 15


def test_frames_are_dropped_both_ways_without_a_link():
    machine = Machine()
    machine.card.set_link(up=False)
    machine.offer(1600)
    machine.transmit(b"t" * 60)
    machine.pair.transmit()
    assert machine.pair.receive([b"r" * 60]) == 1
    assert (machine.line.sent, machine.driver.collect(RX)) == ([], [])
    assert len(machine.driver.collect(TX)) == 1


TABLES = (1).to_bytes(4, "little") + OTHER + (1).to_bytes(4, "little") + GROUP


@pytest.mark.parametrize(
    ("commands", "to", "delivered"),
    [
        ([], OTHER, 1),
        ([(0, 0, b"\0")], OTHER, 0),
        ([(0, 0, b"\0")], MAC, 1),
        ([(0, 0, b"\0")], BROADCAST, 1),
        ([(0, 0, b"\0")], GROUP, 0),
        ([(0, 0, b"\0"), (0, 1, b"\1")], GROUP, 1),
        ([(0, 0, b"\0"), (0, 2, b"\1")], OTHER, 1),
        ([(0, 0, b"\0"), (0, 4, b"\1")], MAC, 0),
        ([(0, 0, b"\0"), (0, 5, b"\1")], BROADCAST, 0),
        ([(0, 0, b"\0"), (1, 0, TABLES)], OTHER, 1),
        ([(0, 0, b"\0"), (1, 0, TABLES)], GROUP, 1),
        ([(0, 0, b"\0"), (1, 0, TABLES), (0, 3, b"\1")], GROUP, 0),
        ([(0, 0, b"\0"), (1, 1, OTHER)], MAC, 0),
    ],
)
def test_virtio_5_1_6_5_filter_lets_in_what_the_driver_asked_for(commands, to, delivered):
    machine = Machine()
    assert [machine.command(*each) for each in commands] == [0] * len(commands)
    machine.offer(1600)
    assert machine.pair.receive([to + bytes(54)]) == 1
    assert len(machine.driver.collect(RX)) == delivered


def test_too_many_addresses_are_an_overflow_that_lets_all_in():
    machine = Machine()
    many = (65).to_bytes(4, "little") + OTHER * 65 + bytes(4)
    machine.command(0, 0, b"\0")
    assert machine.command(1, 0, many) == 0
    assert machine.card.state.unicast_overflow
    machine.offer(1600)
    machine.pair.receive([bytes.fromhex("520000000000") + bytes(54)])
    assert len(machine.driver.collect(RX)) == 1


@settings(max_examples=60)
@given(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=40))
def test_any_command_is_answered_and_the_state_stays_possible(kind, number, data):
    machine = Machine()
    assert machine.command(kind, number, data) in {0, 1}
    machine.card.state.check()


@settings(max_examples=60)
@given(
    st.sampled_from([RX, TX, CONTROL]),
    st.lists(st.one_of(st.binary(min_size=1, max_size=40), st.integers(1, 40)), min_size=1, max_size=4),
)  # fmt: skip
def test_any_chain_is_answered_or_the_device_asks_for_a_reset(queue, parts):
    machine = Machine()
    machine.driver.add(*parts, queue=queue)
    machine.driver.kick(queue)
    machine.pair.transmit()
    machine.pair.receive([MAC + bytes(8)])
    left = (
        queue == RX and machine.pair.room() > 0
    )  # too small for the frame: it stays for a smaller one
    assert machine.driver.collect(queue) or machine.driver.needs_reset or left


def test_state_crosses_and_sending_and_receiving_go_on():
    old = Machine()
    old.command(0, 0, b"\0")
    old.command(1, 0, TABLES)
    old.card.set_link(up=False)
    old.offer(1600)
    old.transmit(b"t" * 60)
    new = Machine()
    new.space.memory.write(RAM_BASE, old.space.memory.read(RAM_BASE, 1 << 20))
    record = cpr_state.save(old.card.save_state())
    new.card.load_state(cpr_state.load(NetState, 2, record))
    new.mmio.load_state(cpr_state.load(type(old.mmio.state), 1, cpr_state.save(old.mmio.state)))
    new.mmio.post_load()
    assert new.card.state == old.card.state
    new.card.set_link(up=True)
    new.pair.transmit()
    assert new.line.sent == [(HEADER, b"t" * 60)]
    assert new.pair.receive([GROUP + bytes(54)]) == 1


@pytest.mark.parametrize("changed", [{"mac": b"12345"}, {"unicast": b"1234567"}])
def test_state_with_half_an_address_is_refused(changed):
    with pytest.raises(StateInvalidError, match="not 6 bytes"):
        NetState(**({"mac": MAC} | changed)).check()


TWO = (2).to_bytes(2, "little")
MQ, OFFLOADS, VLAN = 4, 5, 2


def test_virtio_5_1_6_5_5_second_pair_waits_until_the_driver_uses_it():
    machine = Machine(pairs=2)
    assert machine.driver.config(8, 2) == 2
    second = machine.card.pairs[1]
    machine.driver.add(HEADER + b"t" * 60, queue=3)
    machine.driver.kick(3)
    machine.driver.add(1600, queue=2)
    machine.driver.kick(2)
    assert not second.transmit()
    assert (second.room(), machine.lines[1].sent) == (0, [])
    assert machine.command(MQ, 0, TWO) == 0
    assert machine.lines[1].active
    second.transmit()
    assert machine.lines[1].sent == [(HEADER, b"t" * 60)]
    assert second.receive([MAC + bytes(54)]) == 1
    assert len(machine.driver.collect(2)) == 1
    machine.driver.write(0x70, 0)
    assert not machine.lines[1].active


@pytest.mark.parametrize(
    ("pairs", "data"), [(2, b"\0\0"), (2, b"\3\0"), (2, b"\2"), (1, b"\2\0"), (1, b"\1\0")]
)
def test_virtio_5_1_6_5_5_count_of_pairs_that_cannot_be_is_an_error(pairs, data):
    machine = Machine(pairs=pairs)
    assert machine.command(MQ, 0, data) == 1
    assert machine.card.state.pairs == 1


def test_virtio_5_1_2_control_queue_is_the_third_without_the_feature():
    machine = Machine(pairs=2, wanted=~net.F_MQ)
    machine.control = CONTROL
    assert machine.command(0, 0, b"\0") == 0
    assert not machine.card.state.promiscuous
    assert machine.command(MQ, 0, TWO) == 1


def test_virtio_5_1_6_5_6_1_offloads_are_turned_off_and_on_again():
    machine = Machine(vnet_hdr=True)
    machine.offer(1600)
    assert machine.line.offload == 15
    assert machine.command(OFFLOADS, 0, net.F_GUEST_CSUM.to_bytes(8, "little")) == 0
    assert machine.line.offload == 1
    everything = net.F_GUEST_CSUM | net.F_GUEST_TSO4 | net.F_GUEST_TSO6 | net.F_GUEST_ECN
    assert machine.command(OFFLOADS, 0, (everything | 1 << 10).to_bytes(8, "little")) == 1
    assert machine.command(OFFLOADS, 0, everything.to_bytes(8, "little")) == 0
    assert machine.line.offload == 15


def tagged(vlan: int) -> bytes:
    return MAC + OTHER + b"\x81\x00" + (0xE000 | vlan).to_bytes(2, "big") + bytes(50)


@pytest.mark.parametrize(
    ("wanted", "frame", "delivered"),
    [(-1, tagged(7), 1), (-1, tagged(8), 0), (-1, MAC + bytes(54), 1), (~net.F_CTRL_VLAN, tagged(8), 1)],
)  # fmt: skip
def test_virtio_5_1_6_5_3_tagged_frames_come_of_the_vlans_that_the_driver_added(
    wanted, frame, delivered
):
    machine = Machine(wanted=wanted & (1 << 64) - 1)
    seven, eight = ((vlan).to_bytes(2, "little") for vlan in (7, 8))
    commands = [(0, 0, b"\0"), (VLAN, 0, seven), (VLAN, 0, eight), (VLAN, 1, eight)]
    assert [machine.command(*each) for each in commands] == [0] * 4
    assert machine.command(VLAN, 0, (4096).to_bytes(2, "little")) == 1
    machine.offer(1600)
    machine.pair.receive([frame])
    assert len(machine.driver.collect(RX)) == delivered


def test_state_of_a_card_before_it_had_pairs_is_one_pair():
    record = cpr_state.save(NetState(mac=MAC))
    old = {
        name: value for name, value in record.items() if name not in {"pairs", "offloads_off", "vlans"}
    }  # fmt: skip
    assert cpr_state.load(NetState, 1, old) == NetState(mac=MAC)


def test_state_with_more_pairs_than_the_card_has_is_refused():
    with pytest.raises(StateInvalidError, match="the guest uses 3, the card has 2"):
        Machine(pairs=2).card.check_against(NetState(mac=MAC, pairs=3))


def test_second_pair_goes_on_after_a_load():
    old = Machine(pairs=2)
    old.command(MQ, 0, TWO)
    old.driver.add(HEADER + b"t" * 60, queue=3)
    old.driver.kick(3)
    new = Machine(pairs=2)
    new.space.memory.write(RAM_BASE, old.space.memory.read(RAM_BASE, 1 << 20))
    new.card.load_state(cpr_state.load(NetState, 2, cpr_state.save(old.card.save_state())))
    new.mmio.load_state(cpr_state.load(type(old.mmio.state), 1, cpr_state.save(old.mmio.state)))
    new.mmio.post_load()
    assert new.lines[1].active
    new.card.pairs[1].transmit()
    assert new.lines[1].sent == [(HEADER, b"t" * 60)]
