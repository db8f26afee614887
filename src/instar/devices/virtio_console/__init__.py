"""The console device: terminals and named channels of the guest."""

from instar.devices.virtio_console.device import ConsolePort, VirtioConsole
from instar.devices.virtio_console.state import MAX_PORTS, ConsoleState

__all__ = ["MAX_PORTS", "ConsolePort", "ConsoleState", "VirtioConsole"]
