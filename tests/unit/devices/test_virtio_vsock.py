"""The socket device, with a host that does what the test says and a guest that does what it likes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr import state as cpr_state
from instar.cpr.errors import StateInvalidError
from instar.devices.virtio_mmio import VirtioMmio
from instar.devices.virtio_vsock import VirtioVsock, VsockConnectionState, VsockState
from instar.devices.virtio_vsock import packet as p
from instar.devices.virtio_vsock.state import BUFFER, MAX_CONNECTIONS
from instar.testing.fakes import RAM_BASE, FakeIrq, make_space
from instar.testing.virtio_driver import VirtioDriver

BASE = 0x1000_1000
CID = 3
HEADER = struct.Struct("<QQIIIHHIII")
RX, TX, EVENT = 0, 1, 2
HOST, GUEST = 6000, 1234  # ports


class FakeHost:
    """Streams in memory; ``pump`` runs when the test says so."""

    def __init__(self) -> None:
        self.asked = False
        self.listening = {HOST}
        self.streams: dict[int, dict] = {}
        self.next = 0
        self.ok: list[int] = []

    def attach(self, front) -> None:
        self.front = front

    def later(self) -> None:
        self.asked = True

    def idents(self) -> list[int]:
        return list(self.streams)

    def add(self) -> int:
        self.next += 1
        self.streams[self.next] = {
            "in": b"",
            "out": b"",
            "room": 1 << 30,
            "end": False,
            "shut": False,
            "want": None,
        }
        return self.next

    def connect(self, port: int) -> int:
        return self.add() if port in self.listening else -1

    def accepted(self, _ident: int, port: int) -> None:
        self.ok.append(port)

    def send(self, ident: int, data: list) -> int:
        stream = self.streams[ident]
        if stream["room"] < 0:
            return -1
        taken = b"".join(data)[: stream["room"]]
        stream["room"] -= len(taken)
        stream["out"] += taken
        return len(taken)

    def receive(self, ident: int, room: list) -> int:
        stream = self.streams[ident]
        data = stream["in"][: sum(len(view) for view in room)]
        done = 0
        for view in room:
            part = data[done : done + len(view)]
            view[: len(part)] = part
            done += len(part)
        stream["in"] = stream["in"][done:]
        return done if done or stream["end"] else -1

    def shut_down(self, ident: int) -> None:
        self.streams[ident]["shut"] = True

    def want(self, ident: int, *, readable: bool, writable: bool) -> None:
        if ident in self.streams:
            self.streams[ident]["want"] = (readable, writable)

    def close(self, idents: list[int]) -> None:
        for ident in idents:
            self.streams.pop(ident, None)


class Machine:
    def __init__(self, *, start: bool = True) -> None:
        self.space = make_space()
        self.host = FakeHost()
        self.device = VirtioVsock(self.host, guest_cid=CID, state_id="virtio-vsock/0")
        self.mmio = VirtioMmio(self.device, self.space.memory, FakeIrq(), "virtio-mmio/0")
        self.space.add_mmio(BASE, 0x1000, self.mmio, "virtio-mmio")
        self.driver = VirtioDriver(self.space, BASE, RAM_BASE + 0x1000, 0xE_0000)
        if start:
            self.driver.start(queues=3, size=16)
            self.stock()

    def stock(self, count: int = 4, size: int = 1024) -> None:
        for _ in range(count):
            self.driver.add(size, queue=RX)
        self.driver.kick(RX)
        self.turn()

    def turn(self) -> None:
        while self.host.asked:
            self.host.asked = False
            self.device.pump()

    def send(self, op: int, data: bytes = b"", **fields) -> None:
        """Send a packet as the guest would."""
        values = {
            "src": CID, "dst": 2, "src_port": GUEST, "dst_port": HOST, "length": len(data),
            "type": 1, "flags": 0, "buffer": 1 << 16, "forwarded": 0,
        } | fields  # fmt: skip
        raw = HEADER.pack(
            values["src"], values["dst"], values["src_port"], values["dst_port"], values["length"],
            values["type"], op, values["flags"], values["buffer"], values["forwarded"],
        )  # fmt: skip
        self.driver.add(raw + data, queue=TX)
        self.driver.kick(TX)
        self.turn()
        self.driver.collect(TX)

    def packets(self) -> list[tuple[int, bytes, tuple]]:
        """Take what came: op, payload and the whole header; give the buffers back."""
        found = []
        for used in self.driver.collect(RX):
            head = HEADER.unpack(used.data[: HEADER.size])
            assert used.length == HEADER.size + head[4]
            found.append((head[6], used.data[HEADER.size : used.length], head))
        self.stock(len(found))
        return found

    def ready(self, ident: int) -> None:
        self.device.host_ready(ident)
        self.turn()


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def linked(machine: Machine) -> Machine:
    """A connection that the guest began."""
    machine.send(p.REQUEST)
    assert [op for op, _, _ in machine.packets()] == [p.RESPONSE]
    return machine


def test_virtio_5_10_4_address_is_in_the_config(machine):
    assert machine.driver.config(0, 8) == CID


def test_request_to_a_listener_is_accepted_with_credit(machine):
    machine.send(p.REQUEST)
    ((op, _, head),) = machine.packets()
    assert op == p.RESPONSE
    assert head[:4] == (2, CID, HOST, GUEST)
    assert head[8:] == (BUFFER, 0)


def test_request_to_nobody_is_reset(machine):
    machine.send(p.REQUEST, dst_port=1)
    assert [op for op, _, _ in machine.packets()] == [p.RST]


def test_host_initiated_connection_is_told_ok_after_the_response(machine):
    ident = machine.host.add()
    assert machine.device.host_connects(ident, 5000)
    machine.turn()
    ((op, _, head),) = machine.packets()
    assert (op, head[3], machine.host.ok) == (p.REQUEST, 5000, [])
    machine.send(p.RESPONSE, src_port=5000, dst_port=head[2])
    assert machine.host.ok == [head[2]]


def test_host_initiated_connection_that_the_guest_resets_is_closed(machine):
    ident = machine.host.add()
    machine.device.host_connects(ident, 5000)
    machine.turn()
    ((_, _, head),) = machine.packets()
    machine.send(p.RST, src_port=5000, dst_port=head[2])
    assert (machine.host.streams, machine.packets()) == ({}, [])


def test_host_connects_before_the_driver_runs_is_refused():
    machine = Machine(start=False)
    assert not machine.device.host_connects(machine.host.add(), 5000)


def test_data_goes_both_ways(linked):
    linked.send(p.RW, b"from the guest")
    linked.host.streams[1]["in"] = b"from the host"
    linked.ready(1)
    assert linked.host.streams[1]["out"] == b"from the guest"
    assert [(op, data) for op, data, _ in linked.packets()] == [(p.RW, b"from the host")]


def test_host_never_sends_more_than_the_guests_credit(linked):
    linked.send(p.CREDIT_UPDATE, buffer=10, forwarded=0)
    linked.host.streams[1]["in"] = b"0123456789abcdef"
    linked.ready(1)
    assert [data for _, data, _ in linked.packets()] == [b"0123456789"]
    linked.send(p.CREDIT_UPDATE, buffer=10, forwarded=4)
    assert [data for _, data, _ in linked.packets()] == [b"abcd"]


def test_slow_host_gets_everything_and_the_guest_its_credit_back(linked):
    linked.host.streams[1]["room"] = 1000
    linked.send(p.RW, b"a" * 3000)
    linked.send(p.RW, b"b" * (BUFFER // 2))
    assert linked.host.streams[1]["want"] == (True, True)
    linked.host.streams[1]["room"] = 1 << 20
    linked.ready(1)
    assert linked.host.streams[1]["out"] == b"a" * 3000 + b"b" * (BUFFER // 2)
    ((op, _, head),) = linked.packets()
    assert (op, head[9]) == (p.CREDIT_UPDATE, 3000 + BUFFER // 2)


def test_guest_beyond_its_credit_is_reset(linked):
    linked.host.streams[1]["room"] = 0
    linked.send(p.RW, b"a" * (BUFFER - 1))
    assert linked.packets() == []
    linked.send(p.RW, b"aa")
    assert [op for op, _, _ in linked.packets()] == [p.RST]
    assert linked.host.streams == {}


def test_credit_request_is_answered(linked):
    linked.send(p.CREDIT_REQUEST)
    assert [op for op, _, _ in linked.packets()] == [p.CREDIT_UPDATE]


def test_host_half_close_tells_the_guest_which_may_go_on(linked):
    linked.host.streams[1] |= {"in": b"last", "end": True}
    linked.ready(1)
    (first, second) = linked.packets()
    assert (first[1], second[0], second[2][7]) == (b"last", p.SHUTDOWN, 2)
    linked.send(p.RW, b"answer")
    assert linked.host.streams[1]["out"] == b"answer"
    linked.send(p.SHUTDOWN, flags=3)
    assert ([op for op, _, _ in linked.packets()], linked.host.streams) == ([p.RST], {})


def test_guest_half_close_is_passed_on_after_its_last_byte(linked):
    stream = linked.host.streams[1]
    stream["room"] = 2
    linked.send(p.RW, b"last")
    linked.send(p.SHUTDOWN, flags=2)
    assert not stream["shut"]
    stream["room"] = 10
    linked.ready(1)
    assert (stream["out"], stream["shut"]) == (b"last", True)
    stream["in"] = b"answer"
    linked.ready(1)
    assert [data for _, data, _ in linked.packets()] == [b"answer"]


def test_guest_close_waits_for_its_last_byte(linked):
    stream = linked.host.streams[1]
    stream["room"] = 0
    linked.send(p.RW, b"last")
    linked.send(p.SHUTDOWN, flags=3)
    assert linked.packets() == []
    stream["room"] = 10
    linked.ready(1)
    assert (stream["out"], linked.host.streams) == (b"last", {})
    assert [op for op, _, _ in linked.packets()] == [p.RST]


def test_host_peer_that_went_away_makes_the_guest_stop(linked):
    linked.host.streams[1] |= {"room": -1, "end": True}
    linked.send(p.RW, b"into nothing")
    ((op, _, head),) = linked.packets()
    assert (op, head[7]) == (p.SHUTDOWN, 1)
    linked.ready(1)
    assert [op for op, _, _ in linked.packets()] == [p.SHUTDOWN, p.RST]
    assert linked.host.streams == {}


@pytest.mark.parametrize("fields", [{"type": 2}, {"dst": 7}, {"src_port": 99}])
def test_stray_packet_is_reset(linked, fields):
    linked.send(p.RW, b"x", **fields)
    assert [op for op, _, _ in linked.packets()] == [p.RST]


def test_stray_reset_and_wrong_source_are_dropped(linked):
    linked.send(p.RST, src_port=99)
    linked.send(p.RW, b"x", src=9)
    assert (linked.packets(), linked.driver.needs_reset) == ([], False)


def test_connections_are_limited(machine):
    for port in range(MAX_CONNECTIONS + 1):
        machine.send(p.REQUEST, src_port=port)
        last = machine.packets()[-1][0]
    assert (len(machine.host.streams), last) == (MAX_CONNECTIONS, p.RST)


def test_owed_resets_are_limited_and_the_guests_packets_wait(machine):
    machine.driver.collect(RX)
    for _ in range(4):
        machine.send(p.RW)
    for _ in range(80):
        machine.send(p.RW)  # the ring of 16 fills and stays full at 64 resets owed
        if not machine.driver.rings[TX].free:
            break
    assert len(machine.device.state.resets) <= 64


def test_short_packet_is_the_guests_fault(machine):
    machine.driver.add(b"short", queue=TX)
    machine.driver.kick(TX)
    machine.turn()
    assert machine.driver.needs_reset
    assert not machine.host.asked


def test_length_beyond_the_chain_is_the_guests_fault(linked):
    linked.send(p.RW, b"x", length=1 << 31)
    assert linked.driver.needs_reset


def test_reset_closes_everything(linked):
    linked.driver.write(0x70, 0)
    assert (linked.host.streams, linked.device.save_state().connections) == ({}, [])


def crossed(machine: Machine) -> None:
    """Save, and load into a device that has the same host's side."""
    record = cpr_state.save(machine.device.save_state())
    slot = cpr_state.save(machine.mmio.save_state())
    device = VirtioVsock(machine.host, guest_cid=CID, state_id="virtio-vsock/0")
    mmio = VirtioMmio(device, machine.space.memory, FakeIrq(), "virtio-mmio/0")
    device.load_state(cpr_state.load(VsockState, 1, record))
    mmio.load_state(cpr_state.load(type(mmio.state), 1, slot))
    machine.device.port = mmio
    machine.device, machine.mmio = device, mmio
    machine.space._pages[BASE >> 12].device = mmio
    device.post_load()
    mmio.post_load()
    machine.turn()


def test_update_keeps_bytes_and_credit_in_flight(linked):
    stream = linked.host.streams[1]
    stream["room"] = 3
    linked.send(p.RW, b"abcdef")
    stream["in"] = b"uvw"
    crossed(linked)
    stream["room"] = 10
    linked.ready(1)
    assert stream["out"] == b"abcdef"
    assert [data for _, data, _ in linked.packets()] == [b"uvw"]
    assert linked.device.save_state().connections[0].sent == 3


def test_update_keeps_what_is_owed(machine):
    for port in range(100, 106):
        machine.send(p.REQUEST, src_port=port)
    crossed(machine)
    ports = [head[3] for _, _, head in machine.packets()]
    ports += [head[3] for _, _, head in machine.packets()]
    assert ports == list(range(100, 106))


def test_lost_connections_are_told_with_a_transport_reset(linked):
    linked.driver.add(4, queue=EVENT)
    linked.driver.kick(EVENT)
    linked.turn()
    linked.host.streams.clear()
    crossed(linked)
    ((_, length, data),) = linked.driver.collect(EVENT)
    assert (length, data, linked.device.save_state().connections) == (4, bytes(4), [])


def test_stream_that_the_state_does_not_know_is_closed(linked):
    linked.host.add()
    crossed(linked)
    assert list(linked.host.streams) == [1]


def test_impossible_states_are_refused():
    twice = [VsockConnectionState(ident=1), VsockConnectionState(ident=2)]
    with pytest.raises(StateInvalidError, match="twice"):
        VsockState(connections=twice).check()
    with pytest.raises(StateInvalidError, match="does not exist"):
        VsockConnectionState(stage=2).check()


small = st.sampled_from([0, 1, 2, 3, 1234, 6000, (1 << 32) - 1])
packets = st.tuples(
    st.integers(0, 9), st.binary(max_size=40), small, small, small, st.sampled_from([0, 1, 2, 40, 1 << 31]),
    st.integers(0, 4), st.sampled_from([0, 1, 10, (1 << 32) - 1]), st.sampled_from([0, 5, (1 << 32) - 1]),
)  # fmt: skip
steps = st.lists(
    st.one_of(packets, st.sampled_from(["ready", "connect", "update", "end", "gone", "take"])),
    max_size=14,
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_hostile_driver_never_breaks_the_device(script):
    machine = Machine()
    for step in script:
        hostile(machine, step)
        state = machine.device.save_state()
        state.check()
        assert {c.ident for c in state.connections} == set(machine.host.streams)
        assert all(len(c.unsent) <= BUFFER for c in state.connections)
        if machine.driver.needs_reset or not machine.driver.rings[TX].free:
            machine.driver.heap = RAM_BASE + 0x1000
            machine.driver.start(queues=3, size=16)
            machine.stock()


def hostile(machine: Machine, step) -> None:
    if isinstance(step, tuple):
        op, data, port, other, dst, length, kind, buffer, forwarded = step
        machine.send(
            op, data, src_port=port, dst_port=other, dst=dst, length=length, type=kind, buffer=buffer,
            forwarded=forwarded, flags=length & 3,
        )  # fmt: skip
    elif step == "take":
        machine.packets()
    elif step == "update":
        crossed(machine)
    elif step == "connect":
        ident = machine.host.add()
        if not machine.device.host_connects(ident, 5000):
            machine.host.close([ident])
    else:
        for ident, stream in list(machine.host.streams.items()):
            stream["in"] += b"data"
            stream["end"] |= step == "end"
            stream["room"] = -1 if step == "gone" else stream["room"]
            machine.device.host_ready(ident)
        machine.turn()
