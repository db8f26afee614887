"""The console device: ports are introduced, bytes go both ways and wait where there is no room."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr import state as cpr_state
from instar.devices.virtio_console import ConsolePort, ConsoleState, VirtioConsole
from instar.devices.virtio_mmio import VirtioMmio
from instar.testing.fakes import RAM_BASE, FakeChardev, FakeIrq, make_space
from instar.testing.virtio_driver import VirtioDriver

BASE = 0x1000_1000
QUEUES = 16
TO_GUEST, FROM_GUEST = 2, 3
RECEIVE1, TRANSMIT1 = 4, 5


class FakeLine(FakeChardev):
    def __init__(self):
        super().__init__()
        self.connected = True
        self.size = (0, 0)
        self.followed = False

    def follow_size(self):
        self.followed = True

    def resize(self, cols, rows):
        self.size = (cols, rows)
        self.event("resized")


class Machine:
    """A console device with a terminal and a named port, and its guest."""

    def __init__(self):
        self.space = make_space()
        self.lines = FakeLine(), FakeLine()
        self.device = self.make()
        self.mmio = VirtioMmio(self.device, self.space.memory, FakeIrq(), "virtio-mmio/0")
        self.space.add_mmio(BASE, 0x1000, self.mmio, "virtio-mmio")
        self.driver = VirtioDriver(self.space, BASE, RAM_BASE + 0x1000)
        self.driver.start(queues=QUEUES)

    def make(self):
        terminal, channel = self.lines
        ports = {
            0: ConsolePort(terminal, console=True),
            1: ConsolePort(channel, console=False, name="a.b"),
        }
        return VirtioConsole(ports, state_id="virtio-console/0")

    def say(self, port, event, value):
        self.driver.request(struct.pack("<IHH", port, event, value), queue=FROM_GUEST)

    def heard(self):
        """Give buffers and return the messages that came."""
        for _ in self.driver.rings[TO_GUEST].free[:4]:
            self.driver.add(64, queue=TO_GUEST)
        self.driver.kick(TO_GUEST)
        used = self.driver.collect(TO_GUEST)
        return [(*struct.unpack("<IHH", u.data[:8]), u.data[8 : u.length]) for u in used]

    def open(self):
        self.say(0, 0, 1)
        self.say(0, 3, 1)
        self.say(1, 3, 1)
        self.heard()
        self.heard()
        self.say(1, 6, 1)


def test_virtio_5_3_5_ports_are_introduced():
    machine = Machine()
    assert machine.driver.config(4, 4) == 7
    machine.say(0, 0, 1)
    assert machine.heard() == [(0, 1, 1, b""), (1, 1, 1, b"")]
    machine.say(0, 3, 1)
    machine.say(1, 3, 1)
    assert machine.heard() == [
        (0, 4, 1, b""),
        (0, 6, 1, b""),
        (1, 7, 1, b"a.b"),
        (1, 6, 1, b""),
    ]


def test_input_waits_until_the_port_is_open_and_has_buffers():
    machine = Machine()
    line = machine.lines[1]
    machine.driver.add(4, queue=RECEIVE1)
    machine.driver.kick(RECEIVE1)
    line.type(b"abcdefg")
    assert machine.driver.collect(RECEIVE1) == []
    machine.open()
    assert [u.data for u in machine.driver.collect(RECEIVE1)] == [b"abcd"]
    assert machine.driver.request(4, queue=RECEIVE1).length == 3


def test_output_the_host_does_not_take_waits_in_the_ring():
    machine = Machine()
    line = machine.lines[1]
    assert machine.driver.request(b"one", queue=TRANSMIT1).length == 0
    line.stuck, line.kept = True, bytes(2 << 20)
    machine.driver.add(b"two", queue=TRANSMIT1)
    machine.driver.kick(TRANSMIT1)
    assert machine.driver.collect(TRANSMIT1) == []
    line.kept = b""
    line.unstick()
    assert len(machine.driver.collect(TRANSMIT1)) == 1
    assert line.sent == b"onetwo"


def test_host_end_that_comes_and_goes_is_told():
    machine = Machine()
    machine.open()
    line = machine.lines[1]
    line.connected = False
    line.event("closed")
    line.connected = True
    line.event("opened")
    assert machine.heard() == [(1, 6, 0, b""), (1, 6, 1, b"")]


def test_virtio_5_3_5_size_is_in_the_configuration_and_told_to_terminals():
    machine = Machine()
    terminal, channel = machine.lines
    assert (terminal.followed, channel.followed) == (True, False)
    terminal.resize(100, 40)
    assert (machine.driver.config(0, 2), machine.driver.config(2, 2)) == (100, 40)
    machine.say(0, 0, 1)
    machine.heard()
    machine.say(0, 3, 1)
    size = struct.pack("<HH", 100, 40)
    assert machine.heard() == [(0, 4, 1, b""), (0, 5, 0, size), (0, 6, 1, b"")]
    channel.resize(9, 9)
    terminal.resize(0, 0)
    terminal.resize(100, 40)
    assert machine.heard() == []
    terminal.resize(200, 50)
    assert machine.heard() == [(0, 5, 0, struct.pack("<HH", 200, 50))]


def test_sizes_that_the_guest_did_not_fetch_are_replaced():
    machine = Machine()
    machine.open()
    for cols in range(1, 200):
        machine.lines[0].resize(cols, 24)
    assert len(machine.device.state.messages) <= 1
    told = machine.heard()
    assert told[-1] == (0, 5, 0, struct.pack("<HH", 199, 24))


def test_reset_keeps_the_size():
    machine = Machine()
    machine.lines[0].resize(132, 43)
    machine.driver.start(queues=QUEUES)
    assert (machine.driver.config(0, 2), machine.driver.config(2, 2)) == (132, 43)


def test_output_larger_than_can_be_kept_asks_for_a_reset():
    machine = Machine()
    table = machine.driver.rings[TRANSMIT1].desc
    for n in range(8):  # the same bytes again and again
        machine.driver.put_desc(table, n, RAM_BASE, 600_000, int(n < 7), n + 1)
    machine.driver.offer(0, queue=TRANSMIT1)
    machine.driver.kick(TRANSMIT1)
    assert machine.driver.needs_reset
    assert machine.lines[1].sent == b""


def test_load_goes_on_with_what_waited_and_tells_what_changed():
    machine = Machine()
    machine.open()
    machine.lines[1].stuck, machine.lines[1].kept = True, bytes(2 << 20)
    machine.driver.add(b"late", queue=TRANSMIT1)
    machine.driver.kick(TRANSMIT1)
    saved = cpr_state.save(machine.device.save_state())
    machine.lines = FakeLine(), FakeLine()
    machine.lines[1].connected = False
    new = machine.make()
    new.load_state(cpr_state.load(ConsoleState, 1, saved))
    mmio = VirtioMmio(new, machine.space.memory, FakeIrq(), "virtio-mmio/0")
    mmio.load_state(machine.mmio.save_state())
    mmio.post_load()
    assert machine.lines[1].sent == b"late"
    assert new.state.ports[1].guest_open
    assert not new.state.ports[1].host_open


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=12), max_size=20))
def test_messages_of_a_hostile_driver_never_break_the_device(messages):
    machine = Machine()
    for message in messages:
        machine.driver.request(message, queue=FROM_GUEST)
    for _ in range(100):
        machine.say(1, 3, 1)
    assert len(machine.device.state.messages) <= 64
    assert not machine.driver.needs_reset
