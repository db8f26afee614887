"""The devices that other programs serve over vhost-user."""

from __future__ import annotations

from instar.chardev import Chardev
from instar.cli.options.config import VhostUserBlkConfig
from instar.cli.vm import CHILD_PATIENCE_S
from instar.devices.vhost_user_blk import disk_class
from instar.devices.vhost_user_fs import VhostUserFs
from instar.vhostuser import Frontend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.cli.options import ChardevConfig
    from instar.cli.options.config import VhostUserConfig
    from instar.cli.vm import Vm
    from instar.devices.vhost_user import VhostUserDevice
    from instar.memory import AddressSpace


class BackEndSocket(Chardev):
    """What is shown of a connection to a back end, which is no byte stream: nothing can be read, written or taken away.

    Args:
        ident: Unique id.
        vm: Who has the connection of that id, sooner or later.
        path: Where the back end listens.
    """

    __slots__ = ("_path", "_vm")

    def __init__(self, ident: str, vm: Vm, path: str) -> None:
        super().__init__(ident, vm.loop)
        self._vm = vm
        self._path = path
        self.frontend_open = True

    @property
    def filename(self) -> str:
        """What ``query-chardev`` shows."""
        there = any(f.connected for f in self._vm.frontends if f.id == self.id)
        return f"{'' if there else 'disconnected:'}unix:{self._path}"

    def parts(self) -> tuple[Chardev, ...]:
        """Return none: the connection's own state crosses updates."""
        return ()


def show_vhost_socket(vm: Vm, config: ChardevConfig) -> None:
    """List the connection of a device over vhost-user among the character devices."""
    vm.chardevs[config.id] = BackEndSocket(config.id, vm, config.path)


def make_device(
    vm: Vm, space: AddressSpace, config: VhostUserConfig, name: str
) -> VhostUserDevice:
    """Return the device of that name.

    Raises:
        InstarError: RAM is not shared, nobody listens, or it does not speak the protocol.
    """
    machine = vm.machine
    (chardev,) = [c for c in vm.config.chardevs if c.id == config.chardev]
    frontend = Frontend(
        config.chardev,
        chardev.path,
        config.num_queues if isinstance(config, VhostUserBlkConfig) else len(VhostUserFs.queues),
        ram=space.ram,
        loop=vm.loop,
        lock=machine.lock,
        running=lambda: machine.running,
        fds=vm.fds,
        patience_s=CHILD_PATIENCE_S if vm.config.children else 0.0,
        quiet_ms=config.drain_ms,
        reconnect_ms=chardev.reconnect_ms,
        inert=vm.inert,
    )
    vm.host_parts.insert(0, frontend)
    vm.frontends.append(frontend)
    machine.at_each_run(frontend.resume)
    if isinstance(config, VhostUserBlkConfig):
        return disk_class(config.num_queues)(frontend, state_id=f"vhost-user-blk/{name}")
    return VhostUserFs(frontend, tag=config.tag, state_id=f"vhost-user-fs/{name}")
