"""Network cards and back ends from a configuration."""

from __future__ import annotations

from instar.devices.virtio_net import VirtioNet
from instar.machine.network import NetCard, NetLine
from instar.netdev import NetSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.cli.options.config import NetdevConfig, VirtioNetConfig
    from instar.cli.vm import Vm


def plan_netdevs(vm: Vm) -> None:
    """Note the back ends; they are opened once what the program before had is known."""
    for netdev in vm.config.netdevs:
        vm.netdevs.plan(spec_of(netdev))


def spec_of(netdev: NetdevConfig) -> NetSpec:
    """Return what the layer of back ends understands."""
    options = {key: value for key, value in netdev.options.items() if key != "id"}
    return NetSpec(netdev.kind, netdev.id, options)


def make_card(vm: Vm, config: VirtioNetConfig) -> VirtioNet:
    """Return the card, with its line to the back end that it names."""
    line = NetLine(vm.machine, vnet_hdr=vm.netdevs.has_header(config.netdev))
    name = config.id or str(config.slot)
    mac = bytes.fromhex(config.mac.replace(":", ""))
    device = VirtioNet(line, mac=mac, state_id=f"virtio-net/{name}")
    vm.netdevs.use(config.netdev, line)
    ident = config.id or f"{config.driver}.{config.slot}"
    vm.cards.append(NetCard(vm.machine, device, ident, config.driver, config.netdev))
    return device
