"""What a command line means: the tree that :func:`instar.cli.options.parse` returns.

Everything is resolved: defaults filled in, references checked, short forms expanded. Fields are
plain; ``""`` is "not given" for texts. Sizes are bytes.
"""

from __future__ import annotations

from instar.block.limits import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Literal

    from instar.block.policy import ReadRule, WriteRule

    BackendKind = Literal["memfd", "ram", "file"]
    RngKind = Literal["builtin", "random"]
    BlockKind = Literal["drive", "blockdev"]
    ChardevKind = Literal["null", "stdio", "socket", "file", "pty", "pipe", "ringbuf"]
    AddressFamily = Literal["any", "ipv4", "ipv6"]
    MonitorMode = Literal["readline", "control"]
    PanicAction = Literal["none", "pause", "shutdown"]
    WatchdogAction = Literal["reset", "poweroff", "pause", "none"]
    RtcBase = Literal["utc", "localtime", "fixed"]
    RtcClock = Literal["host", "vm"]

SOFTWARE_CPU = "interpreter"
BOARDS = {"virt": SOFTWARE_CPU, "microvm": "kvm"}  # and what can run each
PANIC_ACTIONS: tuple[PanicAction, ...] = ("none", "pause", "shutdown")
WATCHDOG_ACTIONS: tuple[WatchdogAction, ...] = ("reset", "poweroff", "pause", "none")
MAX_CPUS = 8
VIRTIO_SLOTS = 8
MAX_SERIAL_PORTS = 7  # of a virtio-serial-device
DEFAULT_MEMORY = 128 << 20  # bytes
DRAIN_MS = 10_000  # how long a stop waits for a back end by default
SLOT_BUS = "virtio-mmio-bus."  # + slot number: the name of a slot in bus=


class Record:
    """A plain value: equal to another of its class when all fields are equal."""

    __slots__: tuple[str, ...] = ()
    uncompared: ClassVar[frozenset[str]] = frozenset()

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(
            getattr(self, name) == getattr(other, name)
            for name in self.__slots__
            if name not in self.uncompared
        )

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"


class MachineConfig(Record):
    """``-machine``: the board and where its RAM comes from."""

    __slots__ = ("aux_ram_share", "memory_backend", "pit", "type", "update_bridge")
    uncompared: ClassVar[frozenset[str]] = frozenset(
        {"update_bridge"}
    )  # of the monitor, not of the guest

    def __init__(
        self,
        *,
        board: str = "virt",
        memory_backend: str = "",
        aux_ram_share: bool = False,
        update_bridge: bool = False,
        pit: bool = False,
    ) -> None:
        self.type = board
        self.pit = pit  # an i8254; x86 only
        self.memory_backend = memory_backend  # id of a MemoryBackendConfig; "" is plain -m RAM
        self.aux_ram_share = aux_ram_share
        self.update_bridge = (
            update_bridge  # vCPUs run on in a helper while the monitor is replaced
        )


class AccelConfig(Record):
    """``-accel``: what runs the guest's instructions."""

    __slots__ = ("bare_guest", "kind", "pause_shown", "split_irqchip", "wanted")
    uncompared: ClassVar[frozenset[str]] = frozenset(
        {"bare_guest", "wanted"}  # what would have done, and what else was allowed
    )

    def __init__(
        self,
        *,
        kind: str = SOFTWARE_CPU,
        wanted: list[str] | None = None,
        split_irqchip: bool = False,
        pause_shown: bool = False,
        bare_guest: bool = False,
    ) -> None:
        self.kind = kind  # the one that can run the board
        self.wanted = [kind] if wanted is None else wanted  # by preference
        self.split_irqchip = split_irqchip  # the IOAPIC is not in the kernel
        self.pause_shown = pause_shown  # the guest's clocks show how long it did not run
        self.bare_guest = bare_guest  # integer instructions are all that it has


class CpuConfig(Record):
    """``-cpu``: the model and its switches."""

    __slots__ = ("features", "flush_everything", "model", "sstc")

    def __init__(
        self,
        *,
        model: str = "rv64",
        features: list[str] | None = None,
        sstc: bool = True,
        flush_everything: bool = False,
    ) -> None:
        self.model = model
        self.features = features or []  # +name or -name, in the order given; x86 only
        self.sstc = sstc
        self.flush_everything = flush_everything  # never reuse a cached translation or decode


class SmpConfig(Record):
    """``-smp``: harts and how they are grouped; ``sockets * cores * threads == maxcpus``."""

    __slots__ = ("cores", "cpus", "maxcpus", "sockets", "threads")

    def __init__(
        self,
        *,
        cpus: int = 1,
        maxcpus: int = 1,
        sockets: int = 1,
        cores: int = 1,
        threads: int = 1,
    ) -> None:
        self.cpus = cpus
        self.maxcpus = maxcpus
        self.sockets = sockets
        self.cores = cores
        self.threads = threads


class MemoryBackendConfig(Record):
    """``-object memory-backend-memfd|ram|file``."""

    __slots__ = ("huge", "id", "kind", "mem_path", "prealloc", "share", "size")

    def __init__(  # noqa: PLR0913 - a bundle, named parts
        self,
        *,
        kind: BackendKind,
        ident: str,
        size: int,
        share: bool,
        prealloc: bool = False,
        mem_path: str = "",
        huge: int = 0,
    ) -> None:
        self.huge = (
            huge  # size of the host's huge pages that it is made of, bytes; 0: ordinary ones
        )
        self.kind: BackendKind = kind
        self.id = ident
        self.size = size
        self.share = share
        self.prealloc = prealloc
        self.mem_path = mem_path  # of kind file only


class RngConfig(Record):
    """``-object rng-builtin|rng-random``."""

    __slots__ = ("filename", "id", "kind")

    def __init__(self, *, kind: RngKind, ident: str, filename: str = "") -> None:
        self.kind = kind
        self.id = ident
        self.filename = filename  # of kind random only


class TlsCredsConfig(Record):
    """``-object tls-creds-x509``."""

    __slots__ = ("folder", "id", "server", "verify_peer")

    def __init__(self, *, ident: str, folder: str, server: bool, verify_peer: bool) -> None:
        self.id = ident
        self.folder = folder
        self.server = server  # endpoint=server
        self.verify_peer = verify_peer


class BlockConfig(Record):
    """``-drive`` or ``-blockdev``: one raw image file."""

    __slots__ = (
        "discard", "filename", "id", "kind", "limits", "read_only", "rerror", "throttle_group", "werror",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - one argument a field
        self,
        *,
        kind: BlockKind,
        ident: str,
        filename: str,
        read_only: bool = False,
        discard: bool = False,
        rerror: ReadRule = "report",
        werror: WriteRule = "enospc",
        limits: Limits | None = None,
        throttle_group: str = "",
    ) -> None:
        self.kind = kind
        self.id = ident
        self.filename = filename
        self.read_only = read_only
        self.discard = discard  # pass the guest's discards on to the file
        self.rerror: ReadRule = rerror  # for a device that does not say itself
        self.werror: WriteRule = werror
        self.limits = limits or Limits()
        self.throttle_group = throttle_group  # "": its own


class VirtioBlkConfig(Record):
    """``-device virtio-blk-device``."""

    __slots__ = ("drain_ms", "drive", "id", "rerror", "serial", "slot", "werror")
    driver: ClassVar[str] = "virtio-blk-device"

    def __init__(  # noqa: PLR0913 - one argument a field
        self,
        *,
        slot: int,
        drive: str,
        ident: str = "",
        serial: str = "",
        rerror: ReadRule | Literal["auto"] = "auto",
        werror: WriteRule | Literal["auto"] = "auto",
        drain_ms: int = DRAIN_MS,
    ) -> None:
        self.slot = slot  # 0 to 7
        self.drive = drive  # id of a BlockConfig
        self.id = ident
        self.serial = serial  # at most 20 bytes of ASCII
        self.rerror: ReadRule | Literal["auto"] = rerror  # auto: as the drive says
        self.werror: WriteRule | Literal["auto"] = werror
        self.drain_ms = drain_ms


class VirtioRngConfig(Record):
    """``-device virtio-rng-device``."""

    __slots__ = ("id", "rng", "slot")
    driver: ClassVar[str] = "virtio-rng-device"

    def __init__(self, *, slot: int, rng: str = "", ident: str = "") -> None:
        self.slot = slot
        self.rng = rng  # id of an RngConfig; "" is the built-in source
        self.id = ident


class VirtioBalloonConfig(Record):
    """``-device virtio-balloon-device``."""

    __slots__ = ("deflate_on_oom", "free_page_reporting", "id", "slot")
    driver: ClassVar[str] = "virtio-balloon-device"

    def __init__(
        self,
        *,
        slot: int,
        deflate_on_oom: bool = False,
        free_page_reporting: bool = False,
        ident: str = "",
    ) -> None:
        self.slot = slot
        self.deflate_on_oom = deflate_on_oom
        self.free_page_reporting = free_page_reporting
        self.id = ident


class VirtioPortConfig(Record):
    """``-device virtconsole|virtserialport``: a port of the virtio-serial-device before it."""

    __slots__ = ("chardev", "console", "id", "name", "number")

    def __init__(
        self, *, number: int, console: bool, chardev: str, name: str = "", ident: str = ""
    ) -> None:
        self.number = number  # 0 to 6, by the order of the options
        self.console = console
        self.chardev = chardev  # id of a ChardevConfig
        self.name = name  # what the guest finds it by; "" has none
        self.id = ident

    @property
    def driver(self) -> str:
        """Which ``-device`` makes it."""
        return "virtconsole" if self.console else "virtserialport"


class VirtioSerialConfig(Record):
    """``-device virtio-serial-device``."""

    __slots__ = ("id", "ports", "slot")
    driver: ClassVar[str] = "virtio-serial-device"

    def __init__(self, *, slot: int, ident: str = "") -> None:
        self.slot = slot
        self.id = ident
        self.ports: list[VirtioPortConfig] = []


class VirtioVsockConfig(Record):
    """``-device virtio-vsock-device``."""

    __slots__ = ("guest_cid", "id", "slot", "uds_path")
    driver: ClassVar[str] = "virtio-vsock-device"

    def __init__(self, *, slot: int, guest_cid: int, uds_path: str, ident: str = "") -> None:
        self.slot = slot
        self.guest_cid = guest_cid  # 3 to 2**32 - 2
        self.uds_path = uds_path  # unix socket; those of the host's ports have _PORT behind
        self.id = ident


class VirtioNetConfig(Record):
    """``-device virtio-net-device``."""

    __slots__ = ("id", "mac", "mq", "netdev", "slot")
    driver: ClassVar[str] = "virtio-net-device"

    def __init__(
        self, *, slot: int, netdev: str, mac: str = "", mq: bool = False, ident: str = ""
    ) -> None:
        self.slot = slot
        self.netdev = netdev  # id of a NetdevConfig
        self.mq = mq
        self.mac = mac  # lower case with colons; "" only until all cards are known
        self.id = ident


class NetdevConfig(Record):
    """``-netdev``."""

    __slots__ = ("id", "kind", "options")

    def __init__(self, *, kind: str, ident: str, options: dict[str, str]) -> None:
        self.kind = kind  # tap, stream, dgram or none
        self.id = ident
        self.options = options  # key to value as on the command line, checked


class VhostUserBlkConfig(Record):
    """``-device vhost-user-blk-device``."""

    __slots__ = ("chardev", "drain_ms", "id", "num_queues", "slot")
    driver: ClassVar[str] = "vhost-user-blk-device"

    def __init__(
        self,
        *,
        slot: int,
        chardev: str,
        ident: str = "",
        drain_ms: int = DRAIN_MS,
        num_queues: int = 1,
    ) -> None:
        self.slot = slot
        self.chardev = chardev  # id of a ChardevConfig, a unix socket
        self.id = ident
        self.drain_ms = drain_ms
        self.num_queues = num_queues


class VhostUserFsConfig(Record):
    """``-device vhost-user-fs-device``."""

    __slots__ = ("chardev", "drain_ms", "id", "slot", "tag")
    driver: ClassVar[str] = "vhost-user-fs-device"

    def __init__(
        self,
        *,
        slot: int,
        chardev: str,
        tag: str,
        ident: str = "",
        drain_ms: int = DRAIN_MS,
    ) -> None:
        self.slot = slot
        self.drain_ms = drain_ms
        self.chardev = chardev
        self.tag = tag  # 1 to 36 bytes
        self.id = ident


class ChildConfig(Record):
    """``-child``: a program to start."""

    __slots__ = ("command", "name", "restart")

    def __init__(
        self, *, name: str, command: str, restart: Literal["never", "on-failure"] = "never"
    ) -> None:
        self.name = name
        self.command = command  # words as in a shell
        self.restart: Literal["never", "on-failure"] = restart


if TYPE_CHECKING:
    VhostUserConfig = VhostUserBlkConfig | VhostUserFsConfig
    DeviceConfig = (
        VhostUserConfig
        | VirtioBlkConfig
        | VirtioRngConfig
        | VirtioBalloonConfig
        | VirtioVsockConfig
        | VirtioNetConfig
        | VirtioSerialConfig
    )


class ChardevConfig(Record):
    """``-chardev``, or what ``-serial``, ``-monitor`` and ``-qmp`` make of their short forms."""

    __slots__ = (
        "append", "family", "host", "id", "kind", "mux", "nodelay", "path", "port", "reconnect_ms", "reopen_on_cpr",
        "server", "signal", "size", "tls_creds", "wait",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - one argument a field
        self,
        *,
        kind: ChardevKind,
        ident: str,
        path: str = "",
        server: bool = False,
        wait: bool = False,
        append: bool = False,
        signal: bool = False,
        mux: bool = False,
        host: str = "",
        port: int = 0,
        family: AddressFamily = "any",
        nodelay: bool = False,
        reconnect_ms: int = 0,
        size: int = 0,
    ) -> None:
        self.kind = kind
        self.id = ident
        self.path = path  # unix socket, file and pipe
        self.server = server  # socket: listen
        self.wait = wait  # socket, listening: do not start before somebody connected
        self.append = append  # file: keep what is in it
        self.signal = signal  # stdio: Ctrl-C interrupts the monitor, not the guest
        self.mux = mux  # several front ends share it, Ctrl-A c switches
        self.host = host  # TCP socket; "" is a unix socket
        self.port = port
        self.family: AddressFamily = family  # TCP socket: which addresses of the host are taken
        self.nodelay = nodelay  # TCP socket: small pieces are sent at once
        self.reconnect_ms = reconnect_ms  # client: tries again after so long; 0: connects once
        self.size = size  # ringbuf: bytes
        self.tls_creds = ""  # socket: id of a TlsCredsConfig; "" does not speak TLS
        self.reopen_on_cpr = False  # socket with TLS: an update closes the session

    def options(self) -> dict[str, object]:
        """Return what ``instar.chardev.create`` takes."""
        names = [name for name in self.__slots__ if name not in {"id", "kind"}]
        return {name: getattr(self, name) for name in names}


class MonitorConfig(Record):
    """``-mon``, or what ``-monitor`` and ``-qmp`` stand for."""

    __slots__ = ("chardev", "id", "mode", "pretty")

    def __init__(
        self,
        *,
        chardev: str,
        mode: MonitorMode = "readline",
        pretty: bool = False,
        ident: str = "",
    ) -> None:
        self.chardev = chardev  # id of a ChardevConfig
        self.mode = mode  # readline is HMP, control is QMP
        self.pretty = pretty  # QMP: indented replies
        self.id = ident  # unique; parse gives those without one their chardev's


class AddFdConfig(Record):
    """``-add-fd``: an inherited descriptor for a set."""

    __slots__ = ("fd", "opaque", "set")

    def __init__(self, *, fd: int, number: int, opaque: str = "") -> None:
        self.fd = fd
        self.set = number
        self.opaque = opaque  # at most 255 bytes


class ActionConfig(Record):
    """``-action``: what happens to a guest that panics, or that a watchdog finds dead."""

    __slots__ = ("panic", "watchdog")

    def __init__(
        self, *, panic: PanicAction = "shutdown", watchdog: WatchdogAction = "reset"
    ) -> None:
        self.panic: PanicAction = panic
        self.watchdog: WatchdogAction = watchdog


class IcountConfig(Record):
    """``-icount``: one instruction is ``2**shift`` ns of virtual time."""

    __slots__ = ("shift", "sleep")

    def __init__(self, *, shift: int, sleep: bool = True) -> None:
        self.shift = shift  # 0 to 10
        self.sleep = sleep  # idle time passes in real time; False: it is skipped


class RtcConfig(Record):
    """``-rtc``: the date that the guest's clock shows."""

    __slots__ = ("base", "clock", "start")

    def __init__(self, *, base: RtcBase = "utc", start: int = 0, clock: RtcClock = "host") -> None:
        self.base = base
        self.start = start  # of base "fixed": seconds since the epoch at the machine's start
        self.clock = clock  # vm: stands still while the VM is stopped


class SandboxConfig(Record):
    """``-sandbox``: what this program takes from itself once the machine is made."""

    __slots__ = ("enabled", "read", "write")

    def __init__(self) -> None:
        self.enabled = False
        self.read: list[str] = []  # absolute paths that it may read besides what the options name
        self.write: list[str] = []  # and write, and make files in


class Config(Record):
    """Everything the user asked for. Made by ``parse``; attributes are set, not passed."""

    __slots__ = (
        "accel", "actions", "add_fds", "append", "blocks", "chardevs", "children", "cpu", "devices", "exec_allow",
        "icount", "incoming", "incoming_cpr", "initrd", "kernel", "machine", "memory_backends", "memory_size",
        "monitors", "name", "netdevs",
        "no_reboot", "no_shutdown", "pidfile", "process_name", "rngs", "rtc", "sandbox", "seed", "serial", "smp",
        "start_paused", "tls_creds", "uuid", "warnings",
    )  # fmt: skip
    uncompared = frozenset({"warnings"})

    def __init__(self) -> None:
        self.name = ""
        self.process_name = ""  # at most 15 bytes
        self.uuid = ""  # lower case with dashes
        self.machine = MachineConfig()
        self.accel = AccelConfig()
        self.cpu = CpuConfig()
        self.smp = SmpConfig()
        self.memory_size = DEFAULT_MEMORY
        self.memory_backends: list[MemoryBackendConfig] = []
        self.rngs: list[RngConfig] = []
        self.tls_creds: list[TlsCredsConfig] = []
        self.kernel = ""
        self.initrd = ""
        self.append = ""
        self.add_fds: list[AddFdConfig] = []
        self.blocks: list[BlockConfig] = []
        self.netdevs: list[NetdevConfig] = []
        self.devices: list[DeviceConfig] = []  # slots are all different
        self.chardevs: list[ChardevConfig] = []  # implicit ones have QEMU's names, serial0 ...
        self.children: list[ChildConfig] = []
        self.serial = ""  # chardev id; "" is a UART that nobody listens to
        self.monitors: list[MonitorConfig] = []
        self.incoming = (
            ""  # "defer", "file:PATH[,offset=BYTES]", "memfd:", "unix:PATH", "tcp:HOST:PORT"
        )
        self.incoming_cpr = (
            ""  # path of the socket that descriptors come through, in a cpr-transfer
        )
        self.start_paused = False  # -S
        self.pidfile = ""
        self.icount: IcountConfig | None = None
        self.rtc = RtcConfig()
        self.seed: int | None = None  # 64 bits
        self.actions = ActionConfig()
        self.no_reboot = False
        self.no_shutdown = False
        self.exec_allow: list[str] = []  # absolute paths; none: updates may execute anything
        self.sandbox = SandboxConfig()
        self.warnings: list[str] = []  # one sentence each; not part of the meaning


class Request(Record):
    """The command line asks for a text, not for a machine: print it, exit with status 0."""

    __slots__ = ("topic",)

    def __init__(self, topic: str) -> None:
        self.topic = topic  # "help", "version", or the option whose choices are to be listed
