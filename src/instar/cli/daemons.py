"""Make the devices that other programs serve, and start those programs."""

from __future__ import annotations

from instar.chardev import Chardev
from instar.children import Children, ChildSpec
from instar.cli.options.config import VhostUserBlkConfig, VhostUserFsConfig
from instar.devices.vhost_user_blk import disk_class
from instar.devices.vhost_user_fs import VhostUserFs
from instar.migration.parameters import MODES
from instar.vhostuser import Frontend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.cli.options import ChardevConfig
    from instar.cli.vm import Vm
    from instar.devices.vhost_user import VhostUserDevice
    from instar.memory import AddressSpace

    VhostConfig = VhostUserBlkConfig | VhostUserFsConfig

CHILD_PATIENCE_S: Final = 5.0  # a program that we have just started takes a moment to listen


def start_children(vm: Vm) -> None:
    """Start what ``-child`` names, unless the program before did: its children come with its state.

    Raises:
        InstarError: one cannot be started; those that were are in ``vm``, to be ended.
    """
    specs = [ChildSpec(c.name, c.command, c.restart) for c in vm.config.children]
    if not specs and not vm.resumed:
        return
    children = Children(specs, vm.loop, inert=vm.inert)
    vm.host_parts.append(children)
    if vm.inert:
        return
    if vm.resumed:
        vm.loop.call_soon(children.start_new)
    else:
        children.start()


def block_what_daemons_keep(vm: Vm) -> None:
    """Refuse migrations that a file system daemon would not survive: open files are known to it alone."""
    for device in vm.config.devices:
        if isinstance(device, VhostUserFsConfig):
            vm.migration.blockers.add(
                f"{device.driver} {device.tag}: the files that the guest has open are known to the program that "
                "serves them alone, and only mode cpr-exec keeps it",
                *(mode for mode in MODES if mode != "cpr-exec"),
            )


def vhost_ids(vm: Vm) -> set[str]:
    """Return the ids of character devices that are connections to back ends, not byte streams."""
    return {
        device.chardev
        for device in vm.config.devices
        if isinstance(device, VhostUserBlkConfig | VhostUserFsConfig)
    }


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


def make_vhost_devices(vm: Vm, space: AddressSpace) -> dict[int, VhostUserDevice]:
    """Return the devices over vhost-user by slot.

    Raises:
        InstarError: RAM is not shared, nobody listens, or it does not speak the protocol.
    """
    return {
        device.slot: _make_device(vm, space, device)
        for device in vm.config.devices
        if isinstance(device, VhostUserBlkConfig | VhostUserFsConfig)
    }


def _make_device(vm: Vm, space: AddressSpace, config: VhostConfig) -> VhostUserDevice:
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
    name = config.id or str(config.slot)
    if isinstance(config, VhostUserBlkConfig):
        return disk_class(config.num_queues)(frontend, state_id=f"vhost-user-blk/{name}")
    return VhostUserFs(frontend, tag=config.tag, state_id=f"vhost-user-fs/{name}")
