"""The serial port."""

from instar.devices.uart16550.device import Uart16550
from instar.devices.uart16550.state import UartState

__all__ = ["Uart16550", "UartState"]
