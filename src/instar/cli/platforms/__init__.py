"""Boards with the CPU back ends that run their guests: one module each, the only places that know both."""

from __future__ import annotations

from instar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from instar.block.throttle import Timers
    from instar.cli.options import Config
    from instar.cli.vm import Vm
    from instar.machine.clock import MachineClock
    from instar.machine.parts import Board, Drainable, Vcpus
    from instar.machine.serial import SerialLine
    from instar.memory import AddressSpace, RamBlock
    from instar.stateful import Stateful
    from instar.virtio.device import VirtioDevice

    class StatefulBoard(Board, Protocol):
        """A board."""

        @property
        def stateful(self) -> Sequence[Stateful]:
            """What of it crosses an update, in the order of loading."""
            ...

    class Platform(Protocol):
        """A board and what runs it; called in this order."""

        @property
        def ram_id(self) -> str:
            """Name of the guest's RAM block, if the user gave none."""
            ...

        @property
        def boot_id(self) -> str:
            """Name of the RAM block with the boot images."""
            ...

        @property
        def drainables(self) -> Sequence[Drainable]:
            """What has work for the back ends, to be drained before them; once there is a board."""
            ...

        def place_ram(self, space: AddressSpace, ram: RamBlock, /) -> None:
            """Show the guest its RAM."""
            ...

        def make_vcpus(
            self, vm: Vm, space: AddressSpace, serial: SerialLine, /
        ) -> tuple[Vcpus, Timers]:
            """Make the processors; with timers for what is to follow the guest's time."""
            ...

        def make_board(
            self, clock: MachineClock, virtio: Mapping[int, VirtioDevice], /
        ) -> StatefulBoard:
            """Make the board's devices around them.

            Raises:
                ConfigError: what is to be booted cannot be.
            """
            ...


def platform_of(config: Config) -> Platform:
    """Return what ``-machine`` and ``-accel`` ask for.

    Raises:
        ConfigError: this program was built without what runs it.
    """
    if config.machine.type == "microvm":
        try:
            from instar.cli.platforms.microvm import MicrovmPlatform  # noqa: PLC0415 - as below
        except ImportError as e:
            raise ConfigError(
                "-accel kvm: the part of Instar that is compiled for it is missing (Linux on x86-64 alone has it); "
                "nothing was started"
            ) from e
        return MicrovmPlatform(config)
    from instar.cli.platforms.virt import VirtPlatform  # noqa: PLC0415 - only what the machine is

    return VirtPlatform(config)
