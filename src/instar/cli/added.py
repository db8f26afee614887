"""Character devices that a monitor added: a command line may lack them, so an update carries what they are."""

from __future__ import annotations

from instar import log
from instar.cpr.state import State, state, subs, text
from instar.errors import CommandError, InstarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from instar.chardev import Chardev
    from instar.cli.options import ChardevConfig
    from instar.cli.vm import Vm

MAX_ADDED: Final = 64
_MAX_ARGUMENT: Final = 8192  # bytes


@state("chardev-added", version=1)
class AddedState(State):
    """One character device."""

    argument: str = text("As after -chardev.", max=_MAX_ARGUMENT)


@state("chardevs-added", version=1)
class AddedListState(State):
    """All that monitors added, in order."""

    chardevs: list[AddedState] = subs(AddedState, "The character devices.", max=MAX_ADDED)


class AddedChardevs:
    """What monitors added and removed.

    Args:
        vm: Whose character devices they are.

    Attributes:
        configs: What was added and is there, by id.
    """

    __slots__ = ("_arguments", "_vm", "configs")
    state_id = "chardevs-added"
    state_class: ClassVar[type[State]] = AddedListState

    def __init__(self, vm: Vm) -> None:
        self._vm = vm
        self._arguments: dict[str, str] = {}
        self.configs: dict[str, ChardevConfig] = {}

    def add(self, argument: str) -> Chardev:
        """Make a device.

        Raises:
            ConfigError: the argument is none of ``-chardev``; nothing was made.
            CommandError: the id is taken, or there are too many; nothing was made.
            HostError: the host refused; nothing is left behind.
        """
        config = _read_chardev(argument, [])
        if config.id in self._vm.chardevs:
            raise CommandError(f"Chardev with id '{config.id}' already exists")
        if len(self._arguments) == MAX_ADDED or len(argument.encode()) > _MAX_ARGUMENT:
            raise CommandError(
                f"Chardev '{config.id}' was not added: limits are {MAX_ADDED} devices of {_MAX_ARGUMENT} bytes"
            )
        config.wait = False  # the guest runs
        self._vm.make_chardev(config, _told_otherwise)
        self._note(config, argument)
        return self._vm.chardevs[config.id]

    def _note(self, config: ChardevConfig, argument: str) -> None:
        config.wait = False
        self._arguments[config.id] = argument
        self.configs[config.id] = config

    def remove(self, ident: str) -> None:
        """Close a device that nobody uses.

        Raises:
            CommandError: there is none of that id, or it is in use; nothing was changed.
        """
        device = self._vm.chardevs.get(ident)
        if device is None:
            raise CommandError(f"Chardev '{ident[:64]}' not found")
        if device.frontend_open:
            raise CommandError(f"Chardev '{ident}' is busy")
        del self._vm.chardevs[ident]
        self._arguments.pop(ident, None)
        self.configs.pop(ident, None)
        device.close()
        names = {part.state_id for part in device.parts()}
        for entry in list(self._vm.fds.walk("chardev")):
            if entry.name in names:
                self._vm.fds.delete(entry.name, entry.ident)

    def save_state(self) -> AddedListState:
        """Return what was added and is there."""
        return AddedListState(
            chardevs=[AddedState(argument=text) for text in self._arguments.values()]
        )

    def load_state(self, state: AddedListState) -> None:
        """Make those that the command line does not name, over their descriptors; their own state follows."""
        for added in state.chardevs:
            try:
                config = _read_chardev(added.argument, [])
                if config.id in self._vm.chardevs:
                    self._note(config, added.argument)
                else:
                    self.add(added.argument)
            except InstarError as e:
                log.warning(f"a character device that a monitor had added is lost: {e}")


def _read_chardev(argument: str, warnings: list[str]) -> ChardevConfig:
    from instar.cli.options.characters import read_chardev  # noqa: PLC0415 - few machines have some

    return read_chardev(argument, warnings)


def _told_otherwise(_text: str) -> None:
    """Say nothing: the monitor's reply does."""
