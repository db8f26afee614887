"""Objects, disks and devices: who names whom, and in which slot a device sits."""

from __future__ import annotations

from instar.block.policy import READ_RULES, WRITE_RULES
from instar.cli.options.config import (
    DRAIN_MS,
    SLOT_BUS,
    VIRTIO_SLOTS,
    BlockConfig,
    MemoryBackendConfig,
    RngConfig,
    VhostUserBlkConfig,
    VhostUserFsConfig,
    VirtioBalloonConfig,
    VirtioBlkConfig,
    VirtioNetConfig,
    VirtioRngConfig,
    VirtioSerialConfig,
    VirtioVsockConfig,
)
from instar.cli.options.consoles import add_port, serial_device
from instar.cli.options.daemons import vhost_device
from instar.cli.options.grammar import where
from instar.cli.options.throttling import read_limits
from instar.cli.options.tls import TLS_CREDS, tls_creds
from instar.errors import ConfigError
from instar.units import exact_size, shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.block.policy import ReadRule, WriteRule
    from instar.cli.options.config import BackendKind, Config, DeviceConfig
    from instar.cli.options.grammar import Given, Values

_BACKENDS: dict[str, BackendKind] = {
    "memory-backend-memfd": "memfd",
    "memory-backend-ram": "ram",
    "memory-backend-file": "file",
}
_PAGE = 4096
ANY_SLOT = -1  # until all wishes are known


def read_objects(given: Given, config: Config) -> None:
    """Fill ``memory_backends``, ``rngs`` and ``tls_creds``.

    Raises:
        ConfigError: a duplicate id, a size that is no multiple of a page.
    """
    seen: set[str] = set()
    for values in given.each("object"):
        ident = values.text("id")
        if ident in seen:
            raise ConfigError(f"two objects have the id {ident!r}")
        seen.add(ident)
        if values.variant in _BACKENDS:
            config.memory_backends.append(_memory_backend(values))
        elif values.variant == TLS_CREDS:
            config.tls_creds.append(tls_creds(values))
        else:
            random = values.variant == "rng-random"
            config.rngs.append(
                RngConfig(
                    kind="random" if random else "builtin",
                    ident=ident,
                    filename=values.text("filename", "/dev/urandom") if random else "",
                )
            )


_HUGE = 2 << 20  # bytes, of the only size that all hosts have


def _memory_backend(values: Values) -> MemoryBackendConfig:
    kind = _BACKENDS[values.variant]
    size = values.number("size", 0)
    if size % _PAGE:
        raise ConfigError(
            f"{where(values)}: size={exact_size(size)} is not a multiple of {_PAGE} bytes"
        )
    huge = values.number("hugetlbsize", 0)
    if huge & (huge - 1):
        raise ConfigError(f"{where(values)}: hugetlbsize={exact_size(huge)} is not a power of two")
    if huge and not values.flag("hugetlb", default=False):
        raise ConfigError(f"{where(values)}: hugetlbsize= needs hugetlb=on")
    if values.flag("hugetlb", default=False):
        huge = huge or _HUGE
    return MemoryBackendConfig(
        huge=huge,
        kind=kind,
        ident=values.text("id"),
        size=size,
        share=values.flag("share", default=kind == "memfd"),
        prealloc=values.flag("prealloc", default=False),
        mem_path=values.text("mem-path"),
    )


def choose_memory(given: Given, config: Config) -> None:
    """Set ``memory_size`` from ``-m`` or the memory backend, which must agree.

    Raises:
        ConfigError: an unknown backend, two sizes, a size that is no multiple of a page.
    """
    asked = given.one("m").number("size", 0)
    if asked % _PAGE:
        raise ConfigError(f"-m: size {exact_size(asked)} is not a multiple of {_PAGE} bytes")
    name = config.machine.memory_backend
    for backend in config.memory_backends:
        if backend.id != name:
            config.warnings.append(f"memory backend {backend.id!r} is used by nothing")
            continue
        if asked and asked != backend.size:
            raise ConfigError(
                f"-m says {exact_size(asked)}, but memory backend {name!r} has "
                f"{exact_size(backend.size)}"
            )
        config.memory_size = backend.size
    if name and all(backend.id != name for backend in config.memory_backends):
        raise ConfigError(
            f"-machine: memory-backend={name}: there is no -object memory-backend-* with that id"
        )
    if asked:
        config.memory_size = asked


def read_blocks(given: Given, config: Config) -> None:
    """Fill ``blocks``; a ``-drive if=virtio`` also makes its device.

    Raises:
        ConfigError: a duplicate id, an unknown or twice used file node.
    """
    parents = _parents_of_file_nodes(given)
    files = {
        values.text("node-name"): values
        for values in given.each("blockdev")
        if values.variant == "file"
    }
    for name, parent in parents.items():
        if name not in files:
            raise ConfigError(
                f"-blockdev raw: node {parent!r} names file={name}, which is no -blockdev file node"
            )
    counts = {"virtio": 0, "none": 0}
    seen: set[str] = set()
    for values in given.each("drive", "blockdev"):
        block = _drive(values, config, counts) if values.variant == "" else _node(values, files)
        if block.id in seen:
            raise ConfigError(f"two disks have the id {block.id!r}")
        seen.add(block.id)
        if block.id not in parents:  # a file node with a parent is only a part of that one
            config.blocks.append(block)


def _parents_of_file_nodes(given: Given) -> dict[str, str]:
    """Return file node to raw node, for raw nodes that name their file node."""
    parents: dict[str, str] = {}
    for values in given.each("blockdev"):
        child = values.text("file")
        if child in parents:
            raise ConfigError(
                f"-blockdev: file node {child!r} has two users, {parents[child]!r} and "
                f"{values.text('node-name')!r}"
            )
        if child:
            parents[child] = values.text("node-name")
    return parents


def _drive(values: Values, config: Config, counts: dict[str, int]) -> BlockConfig:
    interface = values.text("if", "virtio")
    ident = values.text("id") or f"{interface}{counts[interface]}"
    counts[interface] += 1
    if interface == "virtio":
        config.devices.append(VirtioBlkConfig(slot=ANY_SLOT, drive=ident))
    block = BlockConfig(
        kind="drive",
        ident=ident,
        filename=values.text("file"),
        read_only=values.flag("readonly", default=False),
        discard=_discard(values),
        rerror=_rerror(values) or "report",
        werror=_werror(values) or "enospc",
    )
    read_limits(values, block, config)
    return block


def _node(values: Values, files: dict[str, Values]) -> BlockConfig:
    """Return a -blockdev node; of a raw one over a file node, both together."""
    block = BlockConfig(
        kind="blockdev",
        ident=values.text("node-name"),
        filename=values.text("filename") or values.text("file.filename"),
        read_only=values.flag("read-only", default=False),
        discard=_discard(values),
    )
    if values.variant == "file":
        return block
    child = values.text("file")
    inline = {"file.driver", "file.filename"} & values.given.keys()
    if len(inline) != (0 if child else 2):
        raise ConfigError(
            f"-blockdev raw: node {block.id!r} needs either file=NODE or "
            "file.driver=file,file.filename=FILE"
        )
    if child:
        below = _node(files[child], files)
        block.filename = below.filename
        block.discard = block.discard and below.discard
        if below.read_only and not block.read_only:
            raise ConfigError(
                f"-blockdev raw: node {block.id!r} is writable, but its file node {child!r} is "
                "read-only=on"
            )
    return block


def _rerror(values: Values) -> ReadRule | None:
    """Return the rule for failed reads; None if none is given, or auto."""
    return next((rule for rule in READ_RULES if rule == values.text("rerror")), None)


def _werror(values: Values) -> WriteRule | None:
    """Return the rule for other failures; None if none is given, or auto."""
    return next((rule for rule in WRITE_RULES if rule == values.text("werror")), None)


def _discard(values: Values) -> bool:
    return values.text("discard", "ignore") in {"unmap", "on"}


def read_devices(given: Given, config: Config) -> None:
    """Fill ``devices``, check what they name and give each its slot.

    Raises:
        ConfigError: a duplicate id, an unknown or twice used drive, an unknown rng, no slot left.
    """
    seen: set[str] = set()
    for values in given.each("device"):
        ident = values.text("id")
        if ident in seen:
            raise ConfigError(f"two devices have the id {ident!r}")
        if ident:
            seen.add(ident)
        if not add_port(values, config):
            config.devices.append(_device(values))
    _check_references(config)
    _assign_slots(config)


def _device(values: Values) -> DeviceConfig:
    slot = _slot(values)
    ident = values.text("id")
    served_elsewhere = vhost_device(values, slot) or serial_device(values, slot)
    if served_elsewhere is not None:
        return served_elsewhere
    if values.variant == VirtioRngConfig.driver:
        return VirtioRngConfig(slot=slot, rng=values.text("rng"), ident=ident)
    if values.variant in {VirtioBalloonConfig.driver, VirtioVsockConfig.driver}:
        return _balloon_or_vsock(values, slot, ident)
    if values.variant == VirtioNetConfig.driver:
        return VirtioNetConfig(
            slot=slot,
            netdev=values.text("netdev"),
            mac=values.text("mac"),
            mq=values.flag("mq", default=False),
            ident=ident,
        )
    serial = values.text("serial")
    if not serial.isascii():
        raise ConfigError(f"{where(values)}: serial={shorten(serial)} is not ASCII")
    return VirtioBlkConfig(
        slot=slot,
        drive=values.text("drive"),
        ident=ident,
        serial=serial,
        rerror=_rerror(values) or "auto",
        werror=_werror(values) or "auto",
        drain_ms=values.number("drain-ms", DRAIN_MS),
    )


def _balloon_or_vsock(
    values: Values, slot: int, ident: str
) -> VirtioBalloonConfig | VirtioVsockConfig:
    if values.variant == VirtioBalloonConfig.driver:
        return VirtioBalloonConfig(
            slot=slot,
            deflate_on_oom=values.flag("deflate-on-oom", default=False),
            free_page_reporting=values.flag("free-page-reporting", default=False),
            ident=ident,
        )
    return VirtioVsockConfig(
        slot=slot,
        guest_cid=values.number("guest-cid", 0),
        uds_path=values.text("uds-path"),
        ident=ident,
    )


def _slot(values: Values) -> int:
    bus = values.text("bus")
    if not bus:
        return ANY_SLOT
    for slot in range(VIRTIO_SLOTS):
        if bus == f"{SLOT_BUS}{slot}":
            return slot
    raise ConfigError(
        f"{where(values)}: there is no bus {shorten(bus)}; there are {SLOT_BUS}0 to "
        f"{SLOT_BUS}{VIRTIO_SLOTS - 1}"
    )


def _check_references(config: Config) -> None:
    drives = {block.id for block in config.blocks}
    rngs = {rng.id for rng in config.rngs}
    used: set[str] = set()
    if sum(isinstance(device, VirtioBalloonConfig) for device in config.devices) > 1:
        raise ConfigError("a machine has one balloon at most, two -device ask for one")
    for device in config.devices:
        if isinstance(
            device,
            VirtioBalloonConfig
            | VirtioVsockConfig
            | VirtioNetConfig
            | VhostUserBlkConfig
            | VhostUserFsConfig
            | VirtioSerialConfig,
        ):
            continue
        if isinstance(device, VirtioRngConfig):
            if device.rng and device.rng not in rngs:
                raise ConfigError(
                    f"-device {device.driver}: rng={device.rng}: there is no -object rng-* with that id"
                )
            used.add(device.rng)
            continue
        if device.drive not in drives:
            raise ConfigError(
                f"-device {device.driver}: drive={device.drive}: there is no -drive or -blockdev "
                "with that id"
            )
        if device.drive in used - rngs:
            raise ConfigError(f"drive {device.drive!r} is used by two devices")
        used.add(device.drive)
    config.warnings += [f"drive {x!r} is used by nothing" for x in sorted(drives - used)]
    config.warnings += [f"rng {x!r} is used by nothing" for x in sorted(rngs - used)]


def _assign_slots(config: Config) -> None:
    """Give devices without ``bus=`` the lowest slots that nobody asked for."""
    taken: dict[int, DeviceConfig] = {}
    for device in config.devices:
        if device.slot in taken:
            raise ConfigError(f"bus {SLOT_BUS}{device.slot} is asked for by two devices")
        if device.slot != ANY_SLOT:
            taken[device.slot] = device
    if len(config.devices) > VIRTIO_SLOTS:
        raise ConfigError(
            f"{len(config.devices)} devices do not fit: the board has {VIRTIO_SLOTS} virtio slots"
        )
    free = iter([slot for slot in range(VIRTIO_SLOTS) if slot not in taken])
    for device in config.devices:
        if device.slot == ANY_SLOT:
            device.slot = next(free)
