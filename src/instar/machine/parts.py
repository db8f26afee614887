"""What a machine is put together from, and what monitors may look at."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol, TypeVar

    from instar.block.raw import RawBlock
    from instar.block.throttle import Group
    from instar.memory import AddressSpace, RamBlock
    from instar.stateful import Stateful

    T = TypeVar("T")

    class Vcpus(Protocol):
        """The guest's processors, whatever runs them (docs/decisions/0012-a-second-cpu.md).

        Attributes:
            counts: Virtual time is a count of instructions.
            hardware: The host's processor runs the guest's instructions itself.
            harts: What of :attr:`states` may run on in another program while this one replaces itself.
            states: What crosses an update, in the order of loading.
        """

        counts: bool
        hardware: bool
        harts: list[Stateful]
        states: list[Stateful]

        @property
        def target(self) -> str:
            """Architecture, named as in QEMU."""
            ...

        @property
        def qom_type(self) -> str:
            """QEMU's name of their type."""
            ...

        @property
        def count(self) -> int:
            """How many there are."""
            ...

        def resume(self) -> None:
            """Let them run; running already is fine. Their threads have begun when this returns."""
            ...

        def pause(self) -> None:
            """Park them at an instruction boundary, nothing half done; not with the machine lock held."""
            ...

        def get_ready(self) -> None:
            """Take what running needs of the host; having it is fine. RuntimeError: it has no more threads."""
            ...

        def hold(self) -> None:
            """Make them park soon, until :meth:`resume`; from any thread."""
            ...

        def parked(self, look: Callable[[], T]) -> T:
            """Call ``look`` while they stand still, and let them go on if they ran and nobody held them."""
            ...

        def reload(self, load: Callable[[], object]) -> None:
            """Let ``load`` give them other state, while devices have gone on to drive their lines here; parked."""
            ...

        def now_ns(self) -> int:
            """Return virtual time in nanoseconds."""
            ...

        def clock_start(self) -> None:
            """Let virtual time go on."""
            ...

        def clock_stop(self) -> None:
            """Let virtual time stand still."""
            ...

        def next_timer_ns(self) -> int:
            """Return when the first device's timer in counted time is due, -1 if there is none; parked."""
            ...

        def instructions(self) -> int:
            """Return how many were executed, -1 if nobody counts."""
            ...

        def set_break(self, count: int, /) -> None:
            """Park when ``count`` instructions were executed; -1: never. Only where they are counted."""
            ...

        def thread_id(self, n: int, /) -> int:
            """Return the host's id of the thread that runs one, 0 before it has."""
            ...

        def registers(self, n: int, /) -> Mapping[str, int]:
            """Return one's registers by name, the program counter first; parks for a moment."""
            ...

        def translate(self, n: int, va: int, /) -> int:
            """Return the guest physical address of ``va`` as one maps it, -1 if unmapped; parks for a moment."""
            ...

        def disassemble(
            self, read: Callable[[int, int], bytes], address: int, /
        ) -> tuple[int, str]:
            """Return length and text of the instruction whose bytes ``read(address, length)`` gives.

            Raises:
                CommandError: nobody here can read this architecture's instructions.
            """
            ...

    class Board(Protocol):
        """What the machine needs of its board."""

        def reset(self) -> None:
            """Bring devices, RAM and harts to the state after power-on; harts are parked, the lock is held."""
            ...

        def power_button(self) -> None:
            """Let the guest see that somebody pressed the power button, if it has one; the lock is held."""
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
        "vcpus",
    )

    def __init__(  # noqa: PLR0913 - a bundle, named parts
        self,
        *,
        vcpus: Vcpus,
        board: Board,
        space: AddressSpace,
        drainables: Sequence[Drainable],
        memory_backends: Sequence[MemoryBackend],
        disks: Sequence[tuple[RawBlock, str]],
        retriers: Sequence[Retrier],
        stateful: Sequence[Stateful],
    ) -> None:
        self.vcpus = vcpus
        self.board = board
        self.space = space
        self.drainables = drainables
        self.memory_backends = memory_backends
        self.disks = disks
        self.retriers = retriers
        self.stateful = stateful


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
    """One of the guest's processors as monitors see it; looking parks it for a moment."""

    __slots__ = ("_vcpus", "index", "qom_type", "target")

    def __init__(self, vcpus: Vcpus, index: int) -> None:
        self._vcpus = vcpus
        self.index = index
        self.qom_type = vcpus.qom_type
        self.target = vcpus.target

    @property
    def thread_id(self) -> int:
        """The host's id of the thread that runs it."""
        return self._vcpus.thread_id(self.index)

    def registers(self) -> Mapping[str, int]:
        """Return registers by name, in the order to show them."""
        return self._vcpus.registers(self.index)

    def translate(self, va: int) -> int:
        """Return the guest physical address of ``va``, -1 if unmapped."""
        return self._vcpus.translate(self.index, va)

    def disassemble(self, read: Callable[[int, int], bytes], address: int) -> tuple[int, str]:
        """Return length and text of an instruction; CommandError where nobody can read them."""
        return self._vcpus.disassemble(read, address)


class Region:
    """One region of the guest's physical address space."""

    __slots__ = ("base", "is_ram", "name", "size")

    def __init__(self, base: int, size: int, name: str, *, is_ram: bool) -> None:
        self.base = base
        self.size = size
        self.name = name
        self.is_ram = is_ram
