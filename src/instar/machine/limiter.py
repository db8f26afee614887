"""The limits of disks, as monitors change them."""

from __future__ import annotations

from instar.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.block.limits import Limits
    from instar.block.throttle import Throttles
    from instar.machine.machine import Machine


class DiskLimiter:
    """Changes limits while the guest runs or stands still."""

    __slots__ = ("_machine", "_throttles")

    def __init__(self, machine: Machine, throttles: Throttles) -> None:
        self._machine = machine
        self._throttles = throttles

    def limit(self, *, drive: str, device: str, limits: Limits, group: str) -> None:
        """Give a disk other limits, which the next program keeps.

        Args:
            drive: Name of the disk, or "" to name its device.
            device: Id or path of the guest device that uses it; only without ``drive``.
            limits: None at all takes the disk out of its group.
            group: Disks of one group share their limits; "": the one it is in, or else one of its own.

        Raises:
            CommandError: there is no such disk, or the limits are impossible; nothing changed.
        """
        ident = self._find(drive, device)
        # Parked, because timers that count instructions belong to the vCPU thread.
        self._machine.vcpus.parked(lambda: self._set(ident, limits, group))

    def _find(self, drive: str, device: str) -> str:
        if bool(drive) == bool(device):
            raise CommandError("exactly one of 'device' and 'id' is needed")
        paths = {device, f"/machine/peripheral/{device}/virtio-backend"}
        for disk in self._machine.block_devices:
            if disk.id == drive or (device and disk.device in paths):
                return disk.id
        raise CommandError(f"Device '{drive or device}' not found")

    def _set(self, ident: str, limits: Limits, group: str) -> None:
        machine, throttles = self._machine, self._throttles
        machine.locked(lambda: throttles.limit(ident, limits, group, chosen=True))
        machine.when_running(throttles.serve)
