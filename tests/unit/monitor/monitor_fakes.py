"""The machine that the documentation's examples talk to, and a character device to talk through."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

from instar.block.limits import Limits
from instar.chardev.base import Chardev
from instar.chardev.null import NullChardev
from instar.chardev.ringbuf import RingChardev
from instar.cpu.rv64.look import disassembled
from instar.devices.virtio_net import NetState
from instar.errors import CommandError, GuestMemoryError
from instar.events import EventBus

CODE = bytes.fromhex("1300000067800000")  # nop; ret
PAGE = CODE + bytes(4096 - len(CODE))
RAM = 0x8000_0000


class FakeTimer:
    def __init__(self, callback):
        self.callback = callback

    def cancel(self):
        self.callback = lambda: None


class FakeLoop:
    """Keeps calls until the test runs them."""

    def __init__(self):
        self.later = []
        self.watched = {}

    def call_later(self, delay_ns, callback):
        timer = FakeTimer(callback)
        self.later.append(timer)
        return timer

    def call_soon(self, callback):
        """The next turn is at once."""
        callback()

    def run_later(self):
        calls, self.later = self.later, []
        for timer in calls:
            timer.callback()

    def watch(self, fd, *, readable=None, writable=None):
        self.watched[fd] = (readable, writable)

    def unwatch(self, fd):
        self.watched.pop(fd, None)


class FakeCpu:
    index = 0
    thread_id = 1234
    target = "riscv64"
    qom_type = "rv64-riscv-cpu"

    def registers(self):
        return {"pc": RAM, "x2/sp": RAM + 4096}

    def disassemble(self, read, address):
        return disassembled(read, address)

    def translate(self, va):
        return RAM + va % 4096 if va >> 12 == 1 else -1


@dataclass
class FakeBalloon:
    present: bool = True
    actual: int = 128 << 20
    stats: dict = field(default_factory=lambda: {"stat-free-memory": 73400320})
    targets: list = field(default_factory=list)

    def set_target(self, size):
        self.targets.append(size)


@dataclass
class FakeMachine:
    name: str = "demo"
    uuid: str = "00000000-0000-0000-0000-000000000000"
    runstate: str = "running"
    ending: bool = False
    events: EventBus = field(default_factory=EventBus)
    balloon: FakeBalloon = field(default_factory=FakeBalloon)
    ram_size: int = 128 << 20
    icount: int = 1000
    hardware: bool = False
    replay_break: int = -1
    done: list = field(default_factory=list)

    @property
    def memory_backends(self):
        return [SimpleNamespace(id="ram0", size=128 << 20, share=True, prealloc=False)]

    @property
    def cpus(self):
        return [FakeCpu()]

    @property
    def block_devices(self):
        return [
            SimpleNamespace(
                id="disk0", device="/machine/virtio-mmio/0", filename="disk.img", size=1 << 20,
                read_only=False, counters={"rd_bytes": 512, "rd_operations": 1},
                throttle=SimpleNamespace(name="disk0", limits=Limits((0, 0, 1 << 20, 0, 0, 0))),
            )
        ]  # fmt: skip

    @property
    def regions(self):
        return [
            SimpleNamespace(base=RAM, size=128 << 20, name="ram0", is_ram=True),
            SimpleNamespace(base=0x1000_0000, size=256, name="serial0", is_ram=False),
        ]

    def set_replay_break(self, icount):
        self.done.append(("replay_break", icount))

    def resize_disk(self, ident, size):
        self.done.append(("resize", ident, size))

    def read_physical(self, gpa, length):
        if not RAM <= gpa <= gpa + length <= RAM + 4096:
            raise GuestMemoryError(gpa, length)
        return PAGE[gpa - RAM : gpa - RAM + length]

    def start(self):
        self.runstate = "running"
        self.events.emit("RESUME")

    def stop(self):
        self.runstate = "paused"
        self.events.emit("STOP")

    def reset(self, reason):
        self.done.append(("reset", reason))

    def powerdown(self):
        self.done.append(("powerdown",))

    def quit(self, reason):
        self.done.append(("quit", reason))


class FakeMigration:
    def __init__(self):
        self.parameters = {"downtime-limit": 300, "mode": "normal", "cpr-exec-command": []}
        self.capabilities = {"events": False, "pause-before-switchover": False}
        self.state = {"status": "completed"}
        self.done = []

    def info(self):
        return self.state

    def set_parameters(self, values):
        self.parameters |= values

    def set_capabilities(self, values):
        self.capabilities |= values

    def migrate(self, *, uri, channels, resume):
        if uri and uri.startswith("bogus"):
            raise CommandError(f"unknown migration protocol: {uri}")
        self.done.append((uri, channels, resume))

    def update(self, program="", *, check=False, budget_ms=-1):
        self.done.append(("update", program, check, budget_ms))

    def cancel(self):
        self.done.append("cancel")

    def continue_(self, state):
        self.done.append(state)

    def incoming(self, *, uri, channels, exit_on_error):
        self.done.append((uri, channels, exit_on_error))


class FakeNamedFds:
    def __init__(self, names=("fd1",)):
        self.kept = dict.fromkeys(names, -1)

    def add(self, name, fd):
        self.kept[name] = fd

    def remove(self, name):
        return self.kept.pop(name, None) is not None


class FakeNetCard:
    id = "net0"
    model = "virtio-net-device"
    netdev = "n0"
    filters_vlans = False
    mac = "52:54:00:12:34:56"
    link = True

    def set_link(self, *, up):
        self.link = up

    def filter(self):
        return NetState(mac=bytes.fromhex(self.mac.replace(":", "")))


class FakeNetwork:
    def __init__(self):
        self.cards = [FakeNetCard()]
        self.backends = [SimpleNamespace(id="n0", kind="stream", info="connected,unix:switch")]
        self.added = []

    def add(self, argument):
        self.added.append(argument)

    def remove(self, ident):
        self.backends = [backend for backend in self.backends if backend.id != ident]


class FakeFdSets:
    def __init__(self):
        self.kept = {1: [(9, "rdwr:disk.img")]}

    def members(self):
        return self.kept

    def add(self, fd, number=-1, opaque=""):
        number = 2 if number < 0 else number
        self.kept.setdefault(number, []).append((fd, opaque))
        return number

    def remove(self, number, fd=-1):
        gone = [member for member in self.kept.get(number, []) if fd in {-1, member[0]}]
        self.kept[number] = [member for member in self.kept.get(number, []) if member not in gone]
        return bool(gone)


class FakeLimiter:
    def __init__(self):
        self.done = []

    def limit(self, *, drive, device, limits, group):
        self.done.append((drive, device, limits, group))


class FakeContext:
    def __init__(self):
        self.machine = FakeMachine()
        self.migration = FakeMigration()
        self.loop = FakeLoop()
        self.named_fds = FakeNamedFds()
        self.fd_sets = FakeFdSets()
        self.disk_limiter = FakeLimiter()
        self.network = FakeNetwork()
        ring = RingChardev("ring0", 64, self.loop)
        ring.write(b"abc")
        self.chardevs = {"serial0": NullChardev("serial0", self.loop), "ring0": ring}
        self.added = []
        self.gifts = [7]

    def add_chardev(self, argument, /):
        self.added.append(argument)
        return NullChardev("c1", self.loop)

    def remove_chardev(self, ident, /):
        if self.chardevs.pop(ident, None) is None:
            raise CommandError(f"Chardev '{ident[:64]}' not found")

    def confinement(self):
        return {
            "enabled": False, "seccomp-filters": 0, "no-new-privileges": False, "landlock-abi": 7,
            "exec-allow": [], "read": [], "write": [],
        }  # fmt: skip

    def take_gift(self):
        return self.gifts.pop(0) if self.gifts else -1


class FakeChardev(Chardev):
    """A client that reads only when told to."""

    broken = False

    def __init__(self, ident="monitor0", *, connected=True):
        super().__init__(ident, FakeLoop())
        self.connected = connected
        self.sent = b""
        self.stuck = False
        self.disconnects = 0
        self.inbox = b""

    def write(self, data):
        if self.stuck:
            self._out += data
        else:
            self.sent += data

    def type(self, data):
        """Let the client send; delivered as far as the front end has room."""
        self.inbox += data
        self.accept_input()

    def accept_input(self):
        while self.inbox and (room := self._can_receive()) > 0:
            data, self.inbox = self.inbox[:room], self.inbox[room:]
            self._receive(data)

    def unstick(self):
        self.stuck = False
        self.sent += bytes(self._out)
        self._out.clear()
        self._event("drained")

    def disconnect(self):
        super().disconnect()
        self.disconnects += 1
        self.connected = False
        self._event("closed")

    def connect(self):
        self.connected = True
        self._event("opened")

    def take(self):
        """Return what was sent since the last call."""
        sent, self.sent = self.sent, b""
        return sent
