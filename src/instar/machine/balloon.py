"""What monitors ask of the balloon, and the pages behind it."""

from __future__ import annotations

from instar.errors import GuestMemoryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.devices.virtio_balloon import VirtioBalloon
    from instar.machine.machine import Machine
    from instar.memory import AddressSpace

_PAGE_SHIFT: Final = 12
_EVENT_GAP_NS: Final = 1_000_000_000  # between two events, as QEMU
_UNKNOWN: Final = (1 << 64) - 1
# Virtio 1.2, 5.5.6.4; names as QEMU's guest-stats.
STAT_NAMES: Final = (
    "stat-swap-in", "stat-swap-out", "stat-major-faults", "stat-minor-faults", "stat-free-memory",
    "stat-total-memory", "stat-available-memory", "stat-disk-caches", "stat-htlb-pgalloc", "stat-htlb-pgfail",
)  # fmt: skip


class RamPages:
    """Guest RAM, as far as pages of it can be given back."""

    __slots__ = ("_space",)

    def __init__(self, space: AddressSpace) -> None:
        self._space = space

    def give_back(self, gpa: int, length: int) -> None:
        """Make whole pages zero and free them.

        Raises:
            GuestMemoryError: they are not all in one region of RAM; nothing changed.
        """
        for region in self._space.ram:
            if region.base <= gpa and gpa + length <= region.end:
                region.block.give_back(region.start + gpa - region.base, length)
                self._space.memory.written(gpa, length)
                return
        raise GuestMemoryError(gpa, length)


class Balloon:
    """The machine's balloon; a machine without one has none of these."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._device: VirtioBalloon | None = None
        self._timer_runs = False
        self._reported: int = -1

    def connect(self, device: VirtioBalloon) -> None:
        """Become the user's side of ``device``."""
        self._device = device

    @property
    def present(self) -> bool:
        """Whether there is a device."""
        return self._device is not None

    @property
    def actual(self) -> int:
        """Bytes of RAM that the guest has kept."""
        ram = self._machine.ram_size
        given = 0 if self._device is None else self._device.state.actual << _PAGE_SHIFT
        return max(0, ram - given)

    @property
    def stats(self) -> dict[str, int]:
        """What the guest has told of its memory; asks it for what there is now, for the next time."""
        device = self._device
        if device is None:
            return {}
        told = dict(zip(STAT_NAMES, device.state.stats, strict=True))
        if self._machine.running:
            self._machine.locked(device.ask_stats)
        return {name: value for name, value in told.items() if value != _UNKNOWN}

    def set_target(self, size: int) -> None:
        """Ask the guest to make do with ``size`` bytes of its RAM."""
        device, ram = self._device, self._machine.ram_size
        if device is not None:
            pages = (ram - min(size, ram)) >> _PAGE_SHIFT
            self._machine.locked(lambda: device.set_target(pages))

    def changed(self) -> None:
        """Tell monitors, soon, that the guest has given or taken pages; from any thread."""
        if not self._timer_runs:
            self._timer_runs = True
            self._machine.loop.call_threadsafe(self._report)

    def settle(self) -> None:
        """Tell now what would be told later: the harts stand still, and another program may follow this one."""
        if self._timer_runs:
            self._emit()

    def _report(self) -> None:
        """Send the event, and the last of those that come within a second after it."""
        self._timer_runs = self._emit()
        if self._timer_runs:
            self._machine.loop.call_later(_EVENT_GAP_NS, self._report)

    def _emit(self) -> bool:
        """Send the event if there is something new; return whether it was."""
        if self.actual == self._reported:
            return False
        self._reported = self.actual
        self._machine.events.emit("BALLOON_CHANGE", {"actual": self.actual})
        return True
