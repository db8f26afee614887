"""Character devices: where consoles and monitors get their bytes from and send them to.

Nothing here blocks the main loop, nothing written is lost while its receiver is slow, and every open descriptor,
connection and terminal setting crosses an update.
"""

from instar.chardev.base import Chardev
from instar.chardev.factory import create, front_end

__all__ = ["Chardev", "create", "front_end"]
