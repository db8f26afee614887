"""Network cards and back ends from a configuration."""

from __future__ import annotations

from instar.netdev import NetSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.cli.options.config import NetdevConfig, VirtioNetConfig
    from instar.cli.vm import Vm
    from instar.devices.virtio_net import VirtioNet
    from instar.machine.network import NetCard
    from instar.netdev import Netdevs
    from instar.netdev.base import NetBackend


class Network:
    """Cards and back ends as monitors act on them."""

    __slots__ = ("_netdevs", "cards")

    def __init__(self, netdevs: Netdevs) -> None:
        self._netdevs = netdevs
        self.cards: list[NetCard] = []

    @property
    def backends(self) -> list[NetBackend]:
        """The back ends in the order in which they were made."""
        return list(self._netdevs)

    def add(self, argument: str) -> None:
        """Make a back end at run time.

        Raises:
            ConfigError, CommandError, HostError: it cannot be made; nothing changed.
        """
        from instar.cli.options.network import parse_netdev  # noqa: PLC0415 - the guest runs

        self._netdevs.add(spec_of(parse_netdev(argument)))

    def remove(self, ident: str) -> None:
        """Delete a back end.

        Raises:
            CommandError: there is none of that name.
        """
        self._netdevs.remove(ident)


def plan_netdevs(vm: Vm) -> None:
    """Note the back ends; they are opened once what the program before had is known."""
    for netdev in vm.config.netdevs:
        vm.netdevs.plan(spec_of(netdev))


def spec_of(netdev: NetdevConfig) -> NetSpec:
    """Return what the layer of back ends understands."""
    options = {key: value for key, value in netdev.options.items() if key != "id"}
    return NetSpec(netdev.kind, netdev.id, options)


def make_card(vm: Vm, config: VirtioNetConfig, name: str) -> VirtioNet:
    """Return the card, with its line to the back end that it names."""
    from instar.devices import virtio_net  # noqa: PLC0415 - only machines with a card
    from instar.machine.network import NetCard, NetLines  # noqa: PLC0415 - as above

    count = vm.netdevs.queues(config.netdev) if config.mq else 1
    lines = NetLines(vm.machine, count=count, vnet_hdr=vm.netdevs.has_header(config.netdev))
    mac = bytes.fromhex(config.mac.replace(":", ""))
    device = virtio_net.make_card(lines.lines, mac=mac, state_id=f"virtio-net/{name}")
    vm.netdevs.use(config.netdev, lines)
    ident = config.id or f"{config.driver}.{config.slot}"
    vm.network.cards.append(NetCard(vm.machine, device, ident, config.driver, config.netdev))
    return device
