"""The keyboard controller of a PC, as far as it resets the machine."""

from instar.devices.i8042.device import I8042

__all__ = ["I8042"]
