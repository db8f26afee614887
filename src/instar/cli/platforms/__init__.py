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
    from instar.machine.parts import Board, Vcpus
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
        ConfigError: nothing here can run that board.
    """
    if config.machine.type != "virt":
        raise ConfigError(
            f"-machine {config.machine.type}: there is nothing here that runs it; nothing was started"
        )
    from instar.cli.platforms.virt import VirtPlatform  # noqa: PLC0415 - only what the machine is

    return VirtPlatform(config)
