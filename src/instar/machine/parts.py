"""What a machine is put together from, and what monitors may look at."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from instar.block.raw import RawBlock
    from instar.block.throttle import Group
    from instar.cpu.rv64 import Core
    from instar.machine.vcpus import VcpuThread
    from instar.memory import AddressSpace, RamBlock
    from instar.stateful import Stateful

    class Board(Protocol):
        """What the machine needs of its board."""

        def reset(self) -> None:
            """Bring devices, RAM and harts to the state after power-on; harts are parked, the lock is held."""
            ...

    class Drainable(Protocol):
        """Something with work in flight that must be finished before state is saved."""

        def drain(self) -> str | None:
            """Return when nothing is in flight any more, or after some time with what still is, for people."""
            ...

    class Retrier(Protocol):
        """A device with a disk; it keeps failed requests until the machine runs again."""

        @property
        def block(self) -> object:
            """Return its back end."""
            ...

        def resized(self) -> object:
            """Show the guest the back end's new size; the lock is held."""
            ...

        @property
        def stalled(self) -> bool:
            """Return whether it has some."""
            ...

        def retry(self) -> object:
            """Try them again; the lock is held, the harts are parked."""
            ...


class Parts:
    """Everything that :meth:`instar.machine.Machine.attach` takes.

    Attributes:
        stateful: In the order of loading; the machine itself comes before.
        vcpu_states: Those of them that go to a bridge: what vCPUs are, in the order of loading.
        disks: With the guest device that uses each, "" if none.
        retriers: Devices whose back ends may fail and be repaired.
        drainables: In the order of draining: back ends first, then what their completions feed.
    """

    __slots__ = (
        "board",
        "disks",
        "drainables",
        "memory_backends",
        "retriers",
        "space",
        "stateful",
        "vcpu_states",
        "vcpus",
    )

    def __init__(  # noqa: PLR0913 - a bundle, named parts
        self,
        *,
        vcpus: VcpuThread,
        board: Board,
        space: AddressSpace,
        drainables: Sequence[Drainable],
        memory_backends: Sequence[MemoryBackend],
        disks: Sequence[tuple[RawBlock, str]],
        retriers: Sequence[Retrier],
        stateful: Sequence[Stateful],
        vcpu_states: Sequence[Stateful],
    ) -> None:
        self.vcpus = vcpus
        self.board = board
        self.space = space
        self.drainables = drainables
        self.memory_backends = memory_backends
        self.disks = disks
        self.retriers = retriers
        self.stateful = stateful
        self.vcpu_states = vcpu_states


class MemoryBackend:
    """A RAM block as ``query-memdev`` shows it."""

    __slots__ = ("block", "id", "path", "prealloc", "share", "size")

    def __init__(self, block: RamBlock, *, prealloc: bool, path: str = "") -> None:
        self.block = block
        self.id = block.id
        self.size = block.size
        self.share = block.share
        self.prealloc = prealloc
        self.path = path  # of its file; "" without one


class Disk:
    """A disk as ``query-block`` shows it."""

    __slots__ = ("_block", "device", "id")

    def __init__(self, block: RawBlock, device: str) -> None:
        self._block = block
        self.id = block.id
        self.device = device  # path of the guest device that uses it, "" if none

    @property
    def filename(self) -> str:
        """The host's file."""
        return self._block.path

    @property
    def size(self) -> int:
        """Bytes."""
        return self._block.size

    @property
    def read_only(self) -> bool:
        """Whether the guest may only read."""
        return self._block.read_only

    @property
    def counters(self) -> Mapping[str, int]:
        """What was counted, by the names of QEMU's BlockDeviceStats."""
        return self._block.state.counters()

    @property
    def throttle(self) -> Group | None:
        """Whose limits it keeps to; None: it has none."""
        return self._block.throttle.group if self._block.throttle else None


class Cpu:
    """One hart as monitors see it; looking parks it for a moment."""

    __slots__ = ("_core", "_vcpus", "index")

    def __init__(self, vcpus: VcpuThread, index: int) -> None:
        self._vcpus = vcpus
        self._core: Core = vcpus.core
        self.index = index

    @property
    def thread_id(self) -> int:
        """The host's id of the thread that runs it (all harts share one)."""
        return self._vcpus.thread_id

    def registers(self) -> Mapping[str, int]:
        """Return registers by name, in the order to show them."""
        shown: dict[str, int] = {}
        for name, value in self._vcpus.parked(lambda: self._core.save_hart(self.index)).items():
            if isinstance(value, int):
                shown[name] = value
            else:
                shown.update({f"{name}{n}": item for n, item in enumerate(value)})
        return shown

    def translate(self, va: int) -> int:
        """Return the guest physical address of ``va``, -1 if unmapped."""
        return self._vcpus.parked(lambda: self._core.translate(self.index, va))


class Region:
    """One region of the guest's physical address space."""

    __slots__ = ("base", "is_ram", "name", "size")

    def __init__(self, base: int, size: int, name: str, *, is_ram: bool) -> None:
        self.base = base
        self.size = size
        self.name = name
        self.is_ram = is_ram
