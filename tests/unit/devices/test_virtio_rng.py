"""The entropy device."""

from __future__ import annotations

import os

import pytest

from instar.cpr import state as cpr_state
from instar.devices.virtio_mmio import VirtioMmio
from instar.devices.virtio_rng import FileEntropy, RngState, SystemEntropy, VirtioRng
from instar.devices.virtio_rng.device import MAX_FILL
from instar.errors import ConfigError, HostError
from instar.testing.fakes import RAM_BASE, FakeEntropy, FakeIrq, make_space
from instar.testing.virtio_driver import VirtioDriver

BASE = 0x1000_1000


class Machine:
    """An entropy device and its guest."""

    def __init__(self, entropy) -> None:
        self.space = make_space()
        self.entropy = entropy
        self.device = VirtioRng(entropy, state_id="virtio-rng/0")
        self.mmio = VirtioMmio(self.device, self.space.memory, FakeIrq(), "virtio-mmio/0")
        self.space.add_mmio(BASE, 0x1000, self.mmio, "virtio-mmio")
        self.driver = VirtioDriver(self.space, BASE, RAM_BASE + 0x1000)
        self.driver.start()


class Ended:
    """A source that has nothing and never will."""

    def read(self, _count: int) -> bytes:
        raise HostError("rng-random: /dev/none ended")


class Loop:
    """Remembers what is watched; calls at once."""

    def __init__(self) -> None:
        self.watched = {}

    def watch(self, fd, *, readable) -> None:
        self.watched[fd] = readable

    def unwatch(self, fd) -> None:
        self.watched.pop(fd, None)

    def call_threadsafe(self, callback) -> None:
        callback()


def test_virtio_5_4_6_fills_the_buffers():
    machine = Machine(FakeEntropy())
    answer = machine.driver.request(3, 4)
    assert (answer.length, answer.data) == (7, bytes(range(7)))
    assert machine.device.state.served == 7


def test_chain_larger_than_the_limit_is_filled_in_part():
    machine = Machine(FakeEntropy())
    assert machine.driver.request(MAX_FILL + 1).length == MAX_FILL


def test_virtio_5_4_6_chain_without_room_is_answered():
    machine = Machine(FakeEntropy())
    assert machine.driver.request(b"nothing to fill").length == 0


def test_source_without_bytes_leaves_chains_in_the_ring_until_it_has_some():
    machine = Machine(FakeEntropy(5))
    for _ in range(2):
        machine.driver.add(4)
    machine.driver.kick()
    assert [used.length for used in machine.driver.collect()] == [4, 1]
    machine.driver.add(4)
    machine.driver.kick()
    machine.entropy.refill(0)
    assert machine.driver.collect() == []
    machine.entropy.refill(100)
    assert [used.length for used in machine.driver.collect()] == [4]
    assert not machine.device.state.waiting


def test_source_ready_after_reset_serves_nothing():
    machine = Machine(FakeEntropy(0))
    machine.driver.add(4)
    machine.driver.kick()
    machine.driver.write(0x70, 0)
    machine.entropy.refill(100)
    assert machine.driver.collect() == []
    assert machine.entropy.given == 0


def test_source_that_ended_answers_with_no_bytes():
    machine = Machine(Ended())
    assert machine.driver.request(8).length == 0


def test_load_while_waiting_goes_on_when_there_are_bytes():
    machine = Machine(FakeEntropy(0))
    machine.driver.add(4)
    machine.driver.kick()
    saved = cpr_state.save(machine.device.save_state())
    new = VirtioRng(FakeEntropy(0), state_id="virtio-rng/0")
    new.load_state(cpr_state.load(RngState, 1, saved))
    assert new.state == machine.device.state
    mmio = VirtioMmio(new, machine.space.memory, FakeIrq(), "virtio-mmio/0")
    mmio.load_state(machine.mmio.save_state())
    mmio.post_load()
    new.entropy.refill(9)
    assert [used.length for used in machine.driver.collect()] == [4]


def test_system_entropy_gives_as_much_as_asked():
    called = []
    SystemEntropy().when_ready(lambda: called.append(True))
    assert len(SystemEntropy().read(100)) == 100
    assert called


def test_file_entropy_reads_a_character_device():
    source = FileEntropy("/dev/zero", Loop(), lambda callback: callback())
    assert source.read(5) == bytes(5)
    source.close()


def test_file_entropy_refuses_a_regular_file(tmp_path):
    path = tmp_path / "seed"
    path.write_bytes(b"x")
    with pytest.raises(ConfigError, match="neither a character device nor a FIFO"):
        FileEntropy(str(path), Loop(), lambda callback: callback())


def test_file_entropy_names_a_file_that_is_not_there():
    with pytest.raises(HostError, match="could not open /nowhere/rng: No such file"):
        FileEntropy("/nowhere/rng", Loop(), lambda callback: callback())


def test_file_entropy_waits_for_the_writer_and_says_when_it_ended(tmp_path):
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    loop, called = Loop(), []
    source = FileEntropy(path, loop, lambda callback: callback())
    writer = os.open(path, os.O_WRONLY)
    assert source.read(4) == b""
    source.when_ready(lambda: called.append(source.read(4)))
    os.write(writer, b"luck")
    (readable,) = loop.watched.values()
    readable()
    os.close(writer)
    assert (called, loop.watched) == ([b"luck"], {})
    with pytest.raises(HostError, match="ended"):
        source.read(1)
    source.close()


def test_slots_are_state_and_handles():
    assert set(VirtioRng.__slots__) == {"state", "entropy"}
