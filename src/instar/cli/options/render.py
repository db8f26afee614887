"""From a Config back to words: the command line that another program needs to become this machine."""

from __future__ import annotations

from instar.cli.options.config import (
    SLOT_BUS,
    SOFTWARE_CPU,
    ActionConfig,
    VhostUserBlkConfig,
    VhostUserFsConfig,
    VirtioBalloonConfig,
    VirtioBlkConfig,
    VirtioNetConfig,
    VirtioSerialConfig,
    VirtioVsockConfig,
)
from instar.cli.options.confine import confinement_words
from instar.cli.options.grammar import escape_commas
from instar.cli.options.resolve import format_date
from instar.cli.options.throttling import limit_pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.cli.options.config import (
        AccelConfig,
        BlockConfig,
        ChardevConfig,
        Config,
        DeviceConfig,
        MemoryBackendConfig,
        MonitorConfig,
        RngConfig,
        TlsCredsConfig,
    )

    Pairs = list[tuple[str, str]]


def to_argv(config: Config) -> list[str]:
    """Do what :func:`instar.cli.options.to_argv` says."""
    words = ["-nodefaults", *_machine_words(config), *_boot_words(config), *_set_words(config)]
    words += _object_words(config)
    for block in config.blocks:
        words += _block_words(block)
    for netdev in config.netdevs:
        pairs = [("id", netdev.id), *sorted(netdev.options.items())]
        words += ["-netdev", _join(netdev.kind, pairs)]
    for device in config.devices:
        words += _device_words(device)
    for chardev in config.chardevs:
        words += ["-chardev", _join(chardev.kind, _chardev_pairs(chardev))]
    if config.serial:
        words += ["-serial", f"chardev:{config.serial}"]
    for child in config.children:
        pairs = [("command", child.command), ("restart", child.restart)]
        words += ["-child", _join(f"name={child.name}", pairs)]
    words += confinement_words(config)
    for monitor in config.monitors:
        words += ["-mon", _join(f"chardev={monitor.chardev}", _monitor_pairs(monitor))]
    return words


def _object_words(config: Config) -> list[str]:
    words: list[str] = []
    for backend in config.memory_backends:
        words += ["-object", _join(f"memory-backend-{backend.kind}", _backend_pairs(backend))]
    for rng in config.rngs:
        words += ["-object", _join(f"rng-{rng.kind}", _rng_pairs(rng))]
    for creds in config.tls_creds:
        words += ["-object", _join("tls-creds-x509", _creds_pairs(creds))]
    return words


def _set_words(config: Config) -> list[str]:
    words: list[str] = []
    for wish in config.add_fds:
        opaque = [("opaque", wish.opaque)] if wish.opaque else []
        words += ["-add-fd", _join(f"fd={wish.fd}", [("set", str(wish.set)), *opaque])]
    return words


def _machine_words(config: Config) -> list[str]:
    smp = config.smp
    board: Pairs = [("aux-ram-share", _flag(config.machine.aux_ram_share))]
    if config.machine.update_bridge:
        board.append(("x-update-bridge", "on"))
    if config.machine.memory_backend:
        board.append(("memory-backend", config.machine.memory_backend))
    if config.machine.type != "virt":
        board.append(("pit", _flag(config.machine.pit)))
    topology = [
        (name, str(getattr(smp, name))) for name in ("maxcpus", "sockets", "cores", "threads")
    ]
    words = ["-machine", _join(config.machine.type, board), "-accel", _accel_word(config.accel)]
    words += ["-cpu", _cpu_word(config), "-smp", _join(f"cpus={smp.cpus}", topology)]
    words += ["-m", f"size={config.memory_size}b", "-rtc", _rtc_word(config)]
    if config.icount is not None:
        words += ["-icount", f"shift={config.icount.shift},sleep={_flag(config.icount.sleep)}"]
    if config.seed is not None:
        words += ["-seed", str(config.seed)]
    names = [("guest", config.name), ("process", config.process_name)]
    if any(value for _, value in names):
        words += ["-name", _join("", [pair for pair in names if pair[1]])]
    return words


def _accel_word(accel: AccelConfig) -> str:
    keys: Pairs = []
    if accel.kind != SOFTWARE_CPU:
        keys = [
            ("kernel-irqchip", "split" if accel.split_irqchip else "on"),
            ("x-pause-shown", _flag(accel.pause_shown)),
            ("x-bare-guest", _flag(accel.bare_guest)),
        ]
    return _join(":".join(accel.wanted), keys)


def _cpu_word(config: Config) -> str:
    cpu = config.cpu
    if config.accel.kind != SOFTWARE_CPU:
        return ",".join((cpu.model, *cpu.features))
    switches = [("sstc", _flag(cpu.sstc)), ("x-flush-everything", _flag(cpu.flush_everything))]
    return _join(cpu.model, switches)


def _rtc_word(config: Config) -> str:
    rtc = config.rtc
    base = format_date(rtc.start) if rtc.base == "fixed" else rtc.base
    return f"base={base},clock={rtc.clock}"


def _boot_words(config: Config) -> list[str]:
    words: list[str] = []
    for name in ("uuid", "kernel", "initrd", "append", "incoming", "pidfile"):
        value = getattr(config, name)
        if value:
            words += [f"-{name}", value]
    if config.incoming_cpr:
        path = config.incoming_cpr.replace(",", ",,")
        words += ["-incoming", f"cpr,addr.transport=socket,addr.type=unix,addr.path={path}"]
    if config.actions != ActionConfig():
        words += ["-action", f"panic={config.actions.panic},watchdog={config.actions.watchdog}"]
    for name, is_set in (
        ("-S", config.start_paused),
        ("-no-reboot", config.no_reboot),
        ("-no-shutdown", config.no_shutdown),
    ):
        if is_set:
            words.append(name)
    return words


def _backend_pairs(backend: MemoryBackendConfig) -> Pairs:
    pairs = [
        ("id", backend.id),
        ("size", f"{backend.size}b"),
        ("share", _flag(backend.share)),
        ("prealloc", _flag(backend.prealloc)),
    ]
    if backend.huge:
        pairs += [("hugetlb", "on"), ("hugetlbsize", f"{backend.huge}b")]
    return [*pairs, ("mem-path", backend.mem_path)] if backend.kind == "file" else pairs


def _rng_pairs(rng: RngConfig) -> Pairs:
    pairs = [("id", rng.id)]
    return [*pairs, ("filename", rng.filename)] if rng.kind == "random" else pairs


def _creds_pairs(creds: TlsCredsConfig) -> Pairs:
    endpoint = "server" if creds.server else "client"
    pairs = [("id", creds.id), ("dir", creds.folder), ("endpoint", endpoint)]
    return [*pairs, ("verify-peer", _flag(creds.verify_peer))]


def _block_words(block: BlockConfig) -> list[str]:
    discard = ("discard", "unmap" if block.discard else "ignore")
    read_only = _flag(block.read_only)
    if block.kind == "drive":
        pairs = [("if", "none"), ("id", block.id), ("file", block.filename), ("format", "raw")]
        rules = [("rerror", block.rerror), ("werror", block.werror)]
        return [
            "-drive",
            _join("", [*pairs, ("readonly", read_only), discard, *rules, *limit_pairs(block)]),
        ]
    pairs = [
        ("node-name", block.id),
        ("file.driver", "file"),
        ("file.filename", block.filename),
        ("read-only", read_only),
        discard,
    ]
    return ["-blockdev", _join("driver=raw", pairs)]


def _device_pairs(device: DeviceConfig) -> Pairs:
    pairs = [("bus", f"{SLOT_BUS}{device.slot}")]
    if device.id:
        pairs.append(("id", device.id))
    if isinstance(device, VirtioBlkConfig):
        pairs.append(("drive", device.drive))
        if device.serial:
            pairs.append(("serial", device.serial))
        pairs += [("rerror", device.rerror), ("werror", device.werror)]
        pairs.append(("drain-ms", str(device.drain_ms)))
    elif isinstance(device, VhostUserBlkConfig):
        pairs += [("chardev", device.chardev), ("drain-ms", str(device.drain_ms))]
        pairs.append(("num-queues", str(device.num_queues)))
    elif isinstance(device, VhostUserFsConfig):
        pairs += [("chardev", device.chardev), ("drain-ms", str(device.drain_ms))]
        pairs.append(("tag", device.tag))
    elif isinstance(device, VirtioBalloonConfig):
        pairs.append(("deflate-on-oom", _flag(device.deflate_on_oom)))
        pairs.append(("free-page-reporting", _flag(device.free_page_reporting)))
    elif isinstance(device, VirtioVsockConfig):
        pairs += [("guest-cid", str(device.guest_cid)), ("uds-path", device.uds_path)]
    elif isinstance(device, VirtioNetConfig):
        pairs += [("netdev", device.netdev), ("mac", device.mac), ("mq", _flag(device.mq))]
    elif not isinstance(device, VirtioSerialConfig) and device.rng:
        pairs.append(("rng", device.rng))
    return pairs


def _device_words(device: DeviceConfig) -> list[str]:
    ports = _port_words(device) if isinstance(device, VirtioSerialConfig) else []
    return ["-device", _join(device.driver, _device_pairs(device)), *ports]


def _port_words(device: VirtioSerialConfig) -> list[str]:
    words: list[str] = []
    for port in device.ports:
        pairs = [("chardev", port.chardev)]
        pairs += [(key, text) for key, text in (("name", port.name), ("id", port.id)) if text]
        words += ["-device", _join(port.driver, pairs)]
    return words


def _chardev_pairs(chardev: ChardevConfig) -> Pairs:
    pairs = [("id", chardev.id)]
    if chardev.kind in {"file", "pipe"}:
        pairs.append(("path", chardev.path))
    if chardev.kind == "socket":
        pairs += _socket_pairs(chardev)
    if chardev.kind == "ringbuf":
        pairs.append(("size", f"{chardev.size}b"))
    if chardev.kind == "file":
        pairs.append(("append", _flag(chardev.append)))
    if chardev.kind == "stdio":
        pairs.append(("signal", _flag(chardev.signal)))
    return [*pairs, ("mux", _flag(chardev.mux))]


def _socket_pairs(chardev: ChardevConfig) -> Pairs:
    pairs = [("path", chardev.path)]
    if chardev.host:
        families = [
            (name, _flag(chardev.family in {"any", name}))
            for name in ("ipv4", "ipv6")
            if chardev.family != "any"
        ]
        pairs = [("host", chardev.host), ("port", str(chardev.port)), *families]
        pairs.append(("nodelay", _flag(chardev.nodelay)))
    if chardev.tls_creds:
        pairs.append(("tls-creds", chardev.tls_creds))
        pairs.append(("reopen-on-cpr", _flag(chardev.reopen_on_cpr)))
    pairs.append(("server", _flag(chardev.server)))
    if chardev.server:
        return [*pairs, ("wait", _flag(chardev.wait))]
    return [*pairs, ("reconnect-ms", str(chardev.reconnect_ms))]


def _monitor_pairs(monitor: MonitorConfig) -> Pairs:
    return [("id", monitor.id), ("mode", monitor.mode), ("pretty", _flag(monitor.pretty))]


def _flag(value: bool) -> str:  # noqa: FBT001 - this is what it writes
    return "on" if value else "off"


def _join(first: str, pairs: Pairs) -> str:
    """Return ``first,key=value,...`` with the commas of values doubled."""
    parts = [first] if first else []
    parts += [f"{key}={escape_commas(value)}" for key, value in pairs]
    return ",".join(parts)
