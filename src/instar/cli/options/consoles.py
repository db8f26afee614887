"""virtio-serial: the device, and the ports that the ``-device`` options after it add."""

from __future__ import annotations

from instar.cli.options.config import MAX_SERIAL_PORTS, VirtioPortConfig, VirtioSerialConfig
from instar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.cli.options.config import Config
    from instar.cli.options.grammar import Values

PORT_DRIVERS = ("virtconsole", "virtserialport")


def serial_device(values: Values, slot: int) -> VirtioSerialConfig | None:
    """Return the device that ``-device virtio-serial-device`` asks for; None if it is another."""
    if values.variant != VirtioSerialConfig.driver:
        return None
    return VirtioSerialConfig(slot=slot, ident=values.text("id"))


def add_port(values: Values, config: Config) -> bool:
    """Add a port to the last virtio-serial-device; False if the option asks for no port.

    Raises:
        ConfigError: there is no such device before it, no number is left, or a name is taken.
    """
    if values.variant not in PORT_DRIVERS:
        return False
    devices = [d for d in config.devices if isinstance(d, VirtioSerialConfig)]
    what = f"-device {values.variant}"
    if not devices:
        raise ConfigError(f"{what}: there is no -device {VirtioSerialConfig.driver} before it")
    ports = devices[-1].ports
    console = values.variant == "virtconsole"
    name = values.text("name")
    if name and name in {port.name for port in ports}:
        raise ConfigError(f"{what}: two ports have the name {name!r}")
    taken = {port.number for port in ports}
    first = 0 if console else 1  # the driver takes port 0 for a terminal
    free = [number for number in range(first, MAX_SERIAL_PORTS) if number not in taken]
    if not free:
        raise ConfigError(f"{what}: the device has {MAX_SERIAL_PORTS} ports, which is the limit")
    ports.append(
        VirtioPortConfig(
            number=free[0],
            console=console,
            chardev=values.text("chardev"),
            name=name,
            ident=values.text("id"),
        )
    )
    return True


def serial_chardevs(config: Config) -> list[tuple[str, str]]:
    """Return who uses which character device among the ports."""
    return [
        (f"-device {port.driver}", port.chardev)
        for device in config.devices
        if isinstance(device, VirtioSerialConfig)
        for port in device.ports
    ]
