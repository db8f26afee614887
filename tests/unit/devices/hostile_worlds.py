"""Each device with a host that a script may move, for hostile drivers and fuzz targets."""

from __future__ import annotations

from importlib import import_module

from instar.block.policy import ErrorPolicy
from instar.cpr import state as cpr_state
from instar.testing.fakes import FakeEntropy
from instar.testing.hostile import HostileDriver


class World:
    """A device's machine; ``act`` moves its host, ``finish`` lets it end what is under way."""

    def __init__(self, machine, act, finish=lambda: None) -> None:
        self.machine = machine
        self.act = act
        self.finish = finish
        self.hostile = HostileDriver(machine.driver, act)

    @property
    def mmio(self):
        return self.machine.mmio

    @property
    def device(self):
        return self.mmio.device

    def run(self, data: bytes) -> None:
        """Do what ``data`` says; whatever that was, the state is a possible one and a reset mends the device."""
        self.hostile.run(data)
        self.finish()
        assert self.mmio.device.port is self.mmio
        self.check(self.mmio)
        self.check(self.device)
        self.hostile.restart()
        assert not self.machine.driver.needs_reset
        assert self.mmio.state.status & 4
        assert not any(queue.in_flight for queue in self.mmio.state.queues)

    @staticmethod
    def check(thing) -> None:
        """Save the thing's state as it would cross, and read it again."""
        record = cpr_state.save(thing.save_state())
        cls = thing.state_class
        assert cpr_state.save(cpr_state.load(cls, cls.state_version, record)) == record


def make_blk() -> World:
    blk = import_module("test_virtio_blk")
    machine = blk.Machine(policy=ErrorPolicy())
    disk = machine.block
    disk.hold = True

    def act(n: int) -> None:
        disk.error = (n >> 4) % 3 * 5
        if n & 1:
            disk.finish()
        elif disk.waiting:
            disk.finish_one(n % len(disk.waiting))
        if n & 2:
            machine.device.retry()
        if n & 4:
            machine.device.resized()

    def finish() -> None:
        disk.error = 0
        disk.finish()
        machine.device.retry()
        disk.finish()
        assert len(disk.data) == 64 * 512
        assert machine.driver.needs_reset or not machine.mmio.state.queues[0].in_flight

    return World(machine, act, finish)


def make_net() -> World:
    net = import_module("test_virtio_net")
    machine = net.Machine(pairs=2)

    def act(n: int) -> None:
        if n & 1:
            machine.card.set_link(up=bool(n & 2))
        line, pair = machine.lines[n >> 5 & 1], machine.card.pairs[n >> 5 & 1]
        line.room = len(line.sent) + (n >> 4)
        pair.transmit()
        to = (net.MAC, net.OTHER, net.GROUP, net.BROADCAST)[n >> 2 & 3]
        pair.receive([to + bytes(n * 6)] * (n & 7))

    return World(machine, act)


def make_console() -> World:
    console = import_module("test_virtio_console")
    machine = console.Machine()

    def act(n: int) -> None:
        line = machine.lines[n & 1]
        if n & 2:
            line.type(bytes(n))
        line.stuck = bool(n & 4)
        if n & 8 and not line.stuck:
            line.unstick()
        if n & 16:
            line.connected = not line.connected
            line.event("opened" if line.connected else "closed")

    return World(machine, act)


def make_vsock() -> World:
    vsock = import_module("test_virtio_vsock")
    machine = vsock.Machine()

    def act(n: int) -> None:
        if n & 1:
            ident = machine.host.add()
            if not machine.device.host_connects(ident, 5000 + (n >> 4)):
                machine.host.close([ident])
        for ident, stream in list(machine.host.streams.items()):
            stream["in"] += bytes(n)
            stream["end"] |= n & 6 == 6
            stream["room"] = (n & 0xF0) - 16 if n & 8 else 1 << 30
            machine.device.host_ready(ident)
        machine.turn()

    def finish() -> None:
        machine.turn()
        assert {c.ident for c in machine.device.save_state().connections} == set(
            machine.host.streams
        )

    return World(machine, act, finish)


def make_balloon() -> World:
    balloon = import_module("test_virtio_balloon")
    machine = balloon.Machine()

    def act(n: int) -> None:
        machine.device.set_target(n)
        machine.device.ask_stats()

    return World(machine, act)


def make_rng() -> World:
    rng = import_module("test_virtio_rng")
    machine = rng.Machine(FakeEntropy(100))
    return World(machine, lambda n: machine.entropy.refill(n * 16))


def make_vhost_user(kind: str, queues: int) -> World:
    vhost = import_module("test_vhost_user_devices")
    machine = vhost.Machine(getattr(vhost, kind))
    machine.driver.start(queues=queues)
    front = machine.frontend

    def act(n: int) -> None:
        for index, head in front.offered[: n & 7]:
            front.used[index].append((head, n >> 3 if n & 128 else 0))
        del front.offered[: n & 7]
        front.served()
        if n == 255:
            front.fault("it lied")

    def again() -> None:
        front.lives = True
        front.used = [[], []]

    front.reconnect = again
    return World(machine, act)


MAKERS = {
    "blk": make_blk,
    "net": make_net,
    "console": make_console,
    "vsock": make_vsock,
    "balloon": make_balloon,
    "rng": make_rng,
    "vhost_user_blk": lambda: make_vhost_user("disk", 1),
    "vhost_user_fs": lambda: make_vhost_user("folder", 2),
}
