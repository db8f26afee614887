"""Virtio without a transport and without I/O: rings, chains, and the base of every device."""

from instar.virtio.chain import Chain
from instar.virtio.device import VirtioDevice
from instar.virtio.queue import Queue
from instar.virtio.state import QueueState

__all__ = ["Chain", "Queue", "QueueState", "VirtioDevice"]
