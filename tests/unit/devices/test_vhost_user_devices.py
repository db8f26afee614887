"""Devices over vhost-user: what goes between the guest's rings and the back end's."""

from __future__ import annotations

import pytest

from instar.devices.vhost_user_blk import VhostUserBlk, VhostUserBlkState, disk_class
from instar.devices.vhost_user_blk.device import F_MQ
from instar.devices.vhost_user_fs import VhostUserFs
from instar.devices.virtio_mmio import VirtioMmio
from instar.testing.fakes import RAM_BASE, FakeIrq, make_space
from instar.testing.virtio_driver import VirtioDriver
from instar.vhostuser import BackendError
from instar.virtio import features as f

BASE = 0x1000_1000
CONFIG = (131072).to_bytes(8, "little") + bytes(52)


class FakeFrontend:
    """A back end that does what the test says."""

    def __init__(self, features: int = f.VERSION_1 | f.INDIRECT_DESC | 1 << 9) -> None:
        self.features = features
        self.lives = True
        self.inherited = False
        self.offered: list[tuple[int, int]] = []
        self.kicks: list[int] = []
        self.used: list[list[tuple[int, int]]] = [[], []]
        self.starts: list[tuple[str, int, list[tuple[int, list[int]]]]] = []
        self.faults: list[str] = []
        self.written: list[tuple[int, bytes]] = []
        self.reconnects = 0
        self.config = CONFIG

    def attach(self, served, gone, changed) -> None:
        self.served, self.gone, self.changed = served, gone, changed

    def read_config(self, size: int) -> bytes:
        return self.config[:size]

    def write_config(self, offset: int, data: bytes) -> None:
        self.written.append((offset, data))

    def begin(self, features, plans) -> None:
        self.starts.append(("begin", features, [(p.index, list(p.heads)) for p in plans]))

    def go_on(self, features, plans) -> None:
        self.starts.append(("go on", features, [(p.index, list(p.heads)) for p in plans]))

    def offer(self, index: int, head: int) -> None:
        self.offered.append((index, head))

    def kick(self, index: int) -> None:
        self.kicks.append(index)

    def take(self, index: int):
        return self.used[index].pop(0) if self.used[index] else None

    def fault(self, why: str) -> None:
        self.faults.append(why)
        self.lives = False
        self.gone(why)

    def forget(self) -> None:
        self.offered.clear()

    def reconnect(self) -> None:
        self.reconnects += 1


class Machine:
    """A device over a back end, and a guest that uses it."""

    def __init__(self, make, **frontend) -> None:
        self.space = make_space()
        self.irq = FakeIrq()
        self.frontend = FakeFrontend(**frontend)
        self.device = make(self.frontend)
        self.mmio = VirtioMmio(self.device, self.space.memory, self.irq, "virtio-mmio/0")
        self.space.add_mmio(BASE, 0x1000, self.mmio, "virtio-mmio")
        self.driver = VirtioDriver(self.space, BASE, RAM_BASE + 0x1000)
        self.changed: list[tuple[int, int]] = []
        self.space.memory.on_write(lambda gpa, length: self.changed.append((gpa, length)))

    def use(self, head: int, length: int, queue: int = 0) -> None:
        self.frontend.used[queue].append((head, length))
        self.frontend.served()


def disk(frontend) -> VhostUserBlk:
    return VhostUserBlk(frontend, state_id="vhost-user-blk/0")


def wide_disk(frontend) -> VhostUserBlk:
    return disk_class(4)(frontend, state_id="vhost-user-blk/0")


def folder(frontend) -> VhostUserFs:
    return VhostUserFs(frontend, tag="share", state_id="vhost-user-fs/0")


def test_disk_chain_goes_to_the_back_end_and_comes_back_used():
    machine = Machine(disk)
    machine.driver.start()
    head = machine.driver.add(b"header", 512, 1)
    machine.driver.kick()
    assert (machine.frontend.offered, machine.frontend.kicks) == ([(0, head)], [0])
    machine.use(head, 513)
    assert [(used.head, used.length) for used in machine.driver.collect()] == [(head, 513)]
    assert machine.irq.level


def test_disk_room_of_a_used_chain_is_told_to_the_cpu_whatever_length_is_said():
    machine = Machine(disk)
    machine.driver.start()
    head = machine.driver.add(512)
    machine.driver.kick()
    (chain,) = machine.mmio.queues[0].in_flight()
    machine.changed.clear()
    machine.use(head, 0)
    assert (chain.writable[0][0], 512) in machine.changed


def test_disk_features_are_those_that_both_sides_know():
    machine = Machine(disk, features=f.VERSION_1 | 1 << 9 | 1 << 26)
    offered = machine.driver.negotiate()
    assert offered == f.VERSION_1 | f.EVENT_IDX | 1 << 9  # no indirect chains, no ring reset


def test_disk_back_end_gets_neither_event_indexes_nor_ring_reset():
    machine = Machine(disk)
    machine.driver.start()
    assert machine.frontend.starts == [
        ("begin", f.VERSION_1 | f.INDIRECT_DESC | 1 << 9, [(0, [])])
    ]


@pytest.mark.parametrize(("head", "length"), [(7, 0), (0, 514)])
def test_disk_back_end_that_uses_what_it_does_not_have_stops_its_device(head, length):
    machine = Machine(disk)
    machine.driver.start()
    machine.driver.add(b"header", 512, 1)
    machine.driver.kick()
    machine.use(head, length)
    assert machine.driver.needs_reset
    assert len(machine.frontend.faults) == 1
    assert machine.driver.collect() == []


def test_disk_whose_back_end_is_gone_asks_for_a_reset_and_looks_for_it_then():
    machine = Machine(disk)
    machine.driver.start()
    before = machine.frontend.reconnects
    machine.frontend.lives = False
    machine.frontend.gone("it hung up")
    assert machine.driver.needs_reset
    machine.driver.write(0x70, 0)
    assert machine.frontend.reconnects == before + 1


def test_disk_without_back_end_asks_for_a_reset_at_once():
    machine = Machine(disk)
    machine.frontend.lives = False
    machine.driver.start()
    assert machine.driver.needs_reset


def test_disk_cache_mode_goes_to_the_back_end_and_is_read_back():
    machine = Machine(disk)
    machine.driver.start()
    machine.driver.write(0x100 + 32, 1, size=1)
    machine.driver.write(0x100 + 0, 9, size=1)
    assert machine.frontend.written == [(32, b"\1")]
    assert machine.driver.config(32, 1) == 1
    assert machine.driver.config(0, 8) == 131072


def test_disk_in_another_program_goes_on_with_the_chains_in_flight():
    machine = Machine(disk)
    machine.driver.start()
    head = machine.driver.add(b"header", 512, 1)
    machine.driver.kick()
    frontend = FakeFrontend()
    device = disk(frontend)
    mmio = VirtioMmio(device, machine.space.memory, FakeIrq(), "virtio-mmio/0")
    device.load_state(machine.device.save_state())
    mmio.load_state(machine.mmio.save_state())
    mmio.post_load()
    assert frontend.starts == [("go on", f.VERSION_1 | f.INDIRECT_DESC | 1 << 9, [(0, [head])])]
    frontend.used[0].append((head, 513))
    frontend.served()
    assert [used.head for used in machine.driver.collect()] == [head]


def test_disk_of_an_inherited_connection_keeps_what_the_guest_was_told():
    frontend = FakeFrontend()
    frontend.inherited = True
    device = disk(frontend)
    device.load_state(VhostUserBlkState(config=b"\2" + bytes(59)))
    assert device.config()[0] == 2


def test_disk_that_the_back_end_resized_is_shown_with_its_new_size():
    machine = Machine(disk)
    machine.driver.start()
    machine.frontend.changed()  # nothing did
    assert machine.driver.acknowledge() == 0
    machine.frontend.config = (7).to_bytes(8, "little") + CONFIG[8:]
    machine.frontend.changed()
    assert (machine.driver.acknowledge(), machine.driver.config(0, 8)) == (2, 7)


def test_disk_with_four_queues_has_a_ring_for_each_and_says_so():
    machine = Machine(wide_disk, features=f.VERSION_1 | F_MQ)
    machine.frontend.used = [[] for _ in range(4)]
    machine.driver.start(queues=4)
    assert machine.driver.features & F_MQ
    assert machine.driver.config(34, 2) == 4
    for queue in (3, 1):
        machine.driver.add(b"header", 1, queue=queue)
        machine.driver.kick(queue)
    assert machine.frontend.offered == [(3, 0), (1, 0)]
    machine.use(0, 1, queue=3)
    assert (len(machine.driver.collect(3)), machine.driver.collect(1)) == (1, [])


def test_disk_with_more_queues_than_the_back_end_serves_is_refused():
    with pytest.raises(BackendError, match="one queue, 4 are needed"):
        Machine(wide_disk)


def test_folder_tells_its_tag_and_one_request_queue():
    machine = Machine(folder)
    tag = machine.device.config()[:36].rstrip(b"\0")
    assert (tag, machine.driver.config(36, 4)) == (b"share", 1)


def test_folder_queues_reach_rings_of_their_own():
    machine = Machine(folder)
    machine.driver.start(queues=2)
    machine.driver.add(b"urgent", queue=0)
    machine.driver.kick(0)
    machine.driver.add(b"request", 16, queue=1)
    machine.driver.kick(1)
    assert machine.frontend.offered == [(0, 0), (1, 0)]
    machine.use(0, 16, queue=1)
    assert [used.length for used in machine.driver.collect(1)] == [16]
    assert machine.driver.collect(0) == []
