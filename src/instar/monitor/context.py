"""What the monitors need of the machine, of migration and of the program, as protocols.

Commands hold no logic: they check arguments, call one of these, and return what it says. All calls are made in the main
thread. Anything here may raise ``InstarError`` or ``CprError``; the text becomes the client's error reply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from instar.block.throttle import Group
    from instar.chardev.base import Chardev
    from instar.events import EventBus
    from instar.loop import Loop
    from instar.machine.limiter import DiskLimiter


class MemoryBackendInfo(Protocol):
    """One RAM block as ``query-memdev`` shows it."""

    @property
    def id(self) -> str:
        """Unique name."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def share(self) -> bool:
        """Whether the bytes are shared with whoever has the descriptor."""
        ...

    @property
    def prealloc(self) -> bool:
        """Whether all pages were touched at start."""
        ...


class CpuInfo(Protocol):
    """One of the guest's processors."""

    qom_type: str  # QEMU's name of its type
    target: str  # architecture, named as in QEMU

    @property
    def index(self) -> int:
        """Number of the hart, from 0."""
        ...

    @property
    def thread_id(self) -> int:
        """The host's id of the thread that runs it."""
        ...

    def registers(self) -> Mapping[str, int]:
        """Return its registers by name (``x2/sp``: two names), the program counter first."""
        ...

    def translate(self, va: int, /) -> int:
        """Return the guest physical address of ``va`` as this hart sees it now; -1 if unmapped."""
        ...

    def disassemble(self, read: Callable[[int, int], bytes], address: int, /) -> tuple[int, str]:
        """Return length and text of the instruction whose bytes ``read(address, length)`` gives.

        Raises:
            CommandError: nobody here can read this architecture's instructions.
        """
        ...


class BlockInfo(Protocol):
    """One disk as ``query-block`` shows it."""

    @property
    def id(self) -> str:
        """Name of the drive (``-drive id=`` or the node name)."""
        ...

    @property
    def device(self) -> str:
        """Path of the guest device in the machine, "" if none uses it."""
        ...

    @property
    def filename(self) -> str:
        """The host's file."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def read_only(self) -> bool:
        """Whether the guest may only read."""
        ...

    @property
    def counters(self) -> Mapping[str, int]:
        """What was counted, by the names of QEMU's BlockDeviceStats."""
        ...

    @property
    def throttle(self) -> Group | None:
        """Whose limits it keeps to; None: it has none."""
        ...


class RegionInfo(Protocol):
    """One region of the guest's physical address space."""

    @property
    def base(self) -> int:
        """First guest physical address."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def name(self) -> str:
        """What ``info mtree`` calls it."""
        ...

    @property
    def is_ram(self) -> bool:
        """RAM; otherwise a device answers."""
        ...


class Balloon(Protocol):
    """The memory balloon."""

    @property
    def present(self) -> bool:
        """Whether there is a device; without one the others mean nothing."""
        ...

    @property
    def actual(self) -> int:
        """Bytes of RAM that the guest has kept."""
        ...

    @property
    def stats(self) -> Mapping[str, int]:
        """What the guest has told of its memory; asks it to tell again."""
        ...

    def set_target(self, size: int, /) -> None:
        """Ask the guest to make do with ``size`` bytes."""
        ...


class Machine(Protocol):
    """The virtual machine."""

    name: str  # of -name, "" if none
    uuid: str  # canonical text; all zeros if none was given
    events: EventBus

    @property
    def balloon(self) -> Balloon:
        """The balloon, if there is one."""
        ...

    @property
    def runstate(self) -> str:
        """Run state, named as in QEMU."""
        ...

    @property
    def ending(self) -> bool:
        """Whether the process is about to end."""
        ...

    @property
    def ram_size(self) -> int:
        """Bytes of RAM (``-m``)."""
        ...

    @property
    def memory_backends(self) -> Sequence[MemoryBackendInfo]:
        """RAM blocks in the order of the command line."""
        ...

    @property
    def cpus(self) -> Sequence[CpuInfo]:
        """The harts by index."""
        ...

    @property
    def block_devices(self) -> Sequence[BlockInfo]:
        """The disks."""
        ...

    def resize_disk(self, ident: str, size: int, /) -> None:
        """Give a disk another size in bytes and tell the guest.

        Raises:
            CommandError: there is none of that name, or it cannot have that size.
        """
        ...

    @property
    def regions(self) -> Sequence[RegionInfo]:
        """The address space by base address."""
        ...

    @property
    def hardware(self) -> bool:
        """Whether the host's processor runs the guest's instructions itself."""
        ...

    @property
    def icount(self) -> int:
        """Instructions executed so far under ``-icount``; -1 without it."""
        ...

    @property
    def replay_break(self) -> int:
        """The instruction count at which the VM will stop; -1 if none is set."""
        ...

    def set_replay_break(self, icount: int, /) -> None:
        """Stop the VM when ``icount`` instructions were executed; -1 forgets the break.

        Raises:
            CommandError: without ``-icount``, or the count has passed already.
        """
        ...

    def read_physical(self, gpa: int, length: int, /) -> bytes:
        """Return guest RAM; GuestMemoryError if any byte lies outside."""
        ...

    def start(self) -> None:
        """``cont``: let the VM run (or, while a migration comes in, note that it shall run after it)."""
        ...

    def stop(self) -> None:
        """Pause the VM; paused already is fine."""
        ...

    def reset(self, reason: str, /) -> None:
        """Reset the VM (``host-qmp-system-reset``)."""
        ...

    def powerdown(self) -> None:
        """Ask the guest to power off."""
        ...

    def quit(self, reason: str, /) -> None:
        """End the program from the main loop (``host-qmp-quit``)."""
        ...


class Migration(Protocol):
    """Outgoing and incoming migration and update.

    MIGRATION and MIGRATION_PASS go to ``machine.events`` only while the capability ``events`` is on: the
    monitors pass on what they get.
    """

    @property
    def parameters(self) -> Mapping[str, object]:
        """All parameters by QMP name in QMP order, with their JSON values."""
        ...

    @property
    def capabilities(self) -> Mapping[str, bool]:
        """All capabilities by name in QMP order."""
        ...

    def set_parameters(self, values: Mapping[str, object], /) -> None:
        """Set these (types were checked, ranges of the schema too); all or none.

        Raises:
            CommandError: a value is not possible now.
        """
        ...

    def set_capabilities(self, values: Mapping[str, bool], /) -> None:
        """Set these; all or none.

        Raises:
            CommandError: one is unknown here, or not possible now.
        """
        ...

    def info(self) -> Mapping[str, object]:
        """Return what ``query-migrate`` replies."""
        ...

    def migrate(
        self,
        *,
        uri: str | None = None,
        channels: Sequence[Mapping[str, object]] | None = None,
        resume: bool = False,
    ) -> None:
        """Start; return when started. Channels have the JSON shape of QMP's MigrationChannel."""
        ...

    def update(self, program: str = "", *, check: bool = False, budget_ms: int = -1) -> None:
        """Start an update, or try one, with a command line made from what runs; "" is this program itself."""
        ...

    def cancel(self) -> None:
        """Cancel; nothing to cancel is fine."""
        ...

    def continue_(self, state: str, /) -> None:
        """Go on from ``state`` (``pre-switchover``)."""
        ...

    def incoming(
        self,
        *,
        uri: str | None = None,
        channels: Sequence[Mapping[str, object]] | None = None,
        exit_on_error: bool = True,
    ) -> None:
        """Start the incoming migration that ``-incoming defer`` announced."""
        ...


class NamedFds(Protocol):
    """Descriptors that clients gave (``getfd``) under a name; they cross an update."""

    def add(self, name: str, fd: int, /) -> None:
        """Keep ``fd`` (owned from now on) as ``name``; an earlier one of that name is closed."""
        ...

    def remove(self, name: str, /) -> bool:
        """Close and forget ``name``; False if there is none."""
        ...


class NetFilter(Protocol):
    """What a guest lets its card receive."""

    promiscuous: bool
    all_multicast: bool
    all_unicast: bool
    no_multicast: bool
    no_unicast: bool
    no_broadcast: bool
    unicast: bytes
    multicast: bytes
    unicast_overflow: bool
    multicast_overflow: bool
    vlans: bytes


class NetCardInfo(Protocol):
    """A network card (``instar.machine.network.NetCard``)."""

    @property
    def id(self) -> str:
        """Unique name."""
        ...

    @property
    def model(self) -> str:
        """Driver's name."""
        ...

    @property
    def netdev(self) -> str:
        """Name of its back end, which may be absent."""
        ...

    @property
    def mac(self) -> str:
        """Its address now."""
        ...

    @property
    def link(self) -> bool:
        """Whether the cable is plugged in."""
        ...

    def set_link(self, *, up: bool) -> None:
        """Plug or pull the cable."""
        ...

    @property
    def filters_vlans(self) -> bool:
        """Whether the guest says which VLANs it listens to."""
        ...

    def filter(self) -> NetFilter:
        """Return what the guest wants to receive."""
        ...


class NetBackendInfo(Protocol):
    """A network back end, ``kind`` as in ``-netdev``."""

    kind: ClassVar[str]

    @property
    def id(self) -> str:
        """Unique name."""
        ...

    @property
    def info(self) -> str:
        """Its other end."""
        ...


class Network(Protocol):
    """Network cards and back ends."""

    @property
    def cards(self) -> Sequence[NetCardInfo]:
        """The cards."""
        ...

    @property
    def backends(self) -> Sequence[NetBackendInfo]:
        """The back ends."""
        ...

    def add(self, argument: str, /) -> None:
        """Make a back end: the argument of ``-netdev``, or a JSON object of the same keys."""
        ...

    def remove(self, ident: str, /) -> None:
        """Delete a back end."""
        ...


class FdSets(Protocol):
    """Sets of descriptors that a user gave (``instar.cpr.fdsets.FdSets``); they cross an update."""

    def members(self) -> Mapping[int, Sequence[tuple[int, str]]]:
        """Return, by set, the descriptors and what was said of each ("" if nothing)."""
        ...

    def add(self, fd: int, number: int = -1, opaque: str = "", /) -> int:
        """Put ``fd`` (owned from now on) into a set, -1 a new one; returns the set's number."""
        ...

    def remove(self, number: int, fd: int = -1, /) -> bool:
        """Close and forget ``fd`` of a set, or with -1 all of them; False if there is none."""
        ...


class Context(Protocol):
    """Everything that a command may act on."""

    @property
    def machine(self) -> Machine:
        """The virtual machine."""
        ...

    @property
    def migration(self) -> Migration:
        """Migration and update."""
        ...

    @property
    def chardevs(self) -> Mapping[str, Chardev]:
        """Character devices by id, in the order of creation."""
        ...

    def add_chardev(self, argument: str, /) -> Chardev:
        """Make a character device as ``-chardev`` with this argument does; it crosses updates, too."""
        ...

    def remove_chardev(self, ident: str, /) -> None:
        """Close a character device that nobody uses."""
        ...

    @property
    def disk_limiter(self) -> DiskLimiter:
        """Who changes the limits of disks."""
        ...

    @property
    def network(self) -> Network:
        """Network cards and back ends."""
        ...

    @property
    def named_fds(self) -> NamedFds:
        """Descriptors of ``getfd`` (``instar.chardev.named.NamedFdTable`` implements it)."""
        ...

    @property
    def fd_sets(self) -> FdSets:
        """Sets of descriptors."""
        ...

    def confinement(self) -> Mapping[str, object]:
        """Return what ``query-sandbox`` shows."""
        ...

    @property
    def loop(self) -> Loop:
        """The main loop."""
        ...


class ClientContext:
    """The program's context as one client's commands see it: with what that client sent along."""

    def __init__(self, program: Context, client: Chardev) -> None:
        self.machine = program.machine
        self.migration = program.migration
        self.chardevs = program.chardevs
        self.add_chardev = program.add_chardev
        self.confinement = program.confinement
        self.remove_chardev = program.remove_chardev
        self.named_fds = program.named_fds
        self.fd_sets = program.fd_sets
        self.disk_limiter = program.disk_limiter
        self.network = program.network
        self.loop = program.loop
        self.take_gift = client.take_gift
