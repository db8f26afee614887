"""The configuration that runs: what the command line said, and what was added, removed or changed since.

What has an option is said by options; what has none (links, the balloon's target, names of getfd) is state, and the
size of a disk is that of its file.

Not on the resume path. Source: own.
"""

from __future__ import annotations

from instar.block.limits import Limits
from instar.cli.options import parse
from instar.cli.options.config import AddFdConfig, BlockConfig, Config, NetdevConfig
from instar.cli.options.render import to_argv
from instar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.cli.options.config import ChardevConfig
    from instar.cli.vm import Vm


def live_words(vm: Vm, incoming: str) -> list[str]:
    """Return the words after the program's name that make this machine again, with this ``-incoming``."""
    config = _copy(vm.config, incoming)
    config.add_fds = [
        AddFdConfig(fd=fd, number=number, opaque=opaque)
        for number, members in vm.fd_sets.members().items()
        for fd, opaque in members
    ]
    config.chardevs = _chardevs(vm)
    config.netdevs = _netdevs(vm)
    config.blocks = [_block(vm, block) for block in vm.config.blocks]
    return to_argv(config)


def began_words(vm: Vm, incoming: str) -> list[str]:
    """Return the words of the machine as this program's command line said it, with this ``-incoming``."""
    return to_argv(_copy(vm.config, incoming))


def problem_of(words: list[str]) -> str:
    """Return why this very release would not take over with these arguments; "" if nothing is seen at once."""
    try:
        config = parse(words)
    except ConfigError as e:
        return str(e)
    if not isinstance(config, Config):
        return "it asks for a text, not for a machine"
    return "" if config.incoming else "no -incoming: the new program would start the guest anew"


def _copy(config: Config, incoming: str) -> Config:
    copy = Config()
    for name in Config.__slots__:
        setattr(copy, name, getattr(config, name))
    copy.incoming = incoming
    copy.incoming_cpr = ""
    copy.start_paused = False  # what it does now is state
    return copy


def _chardevs(vm: Vm) -> list[ChardevConfig]:
    added = vm.added.configs
    listed = [c for c in vm.config.chardevs if c.id in vm.chardevs and c.id not in added]
    return [*listed, *added.values()]


def _netdevs(vm: Vm) -> list[NetdevConfig]:
    return [
        NetdevConfig(kind=spec.kind, ident=spec.id, options=dict(spec.options))
        for spec in vm.netdevs.specs()
    ]


def _block(vm: Vm, block: BlockConfig) -> BlockConfig:
    """Return the disk with the limits that it has now; ``-drive`` can say them, ``-blockdev`` cannot."""
    copy = BlockConfig(kind="drive", ident=block.id, filename=block.filename)
    for name in BlockConfig.__slots__:
        setattr(copy, name, getattr(block, name))
    group = vm.throttles.group_of(block.id)
    copy.limits = Limits() if group is None else group.limits
    copy.throttle_group = "" if group is None or group.name == block.id else group.name
    if group is not None:
        copy.kind = "drive"
    return copy
