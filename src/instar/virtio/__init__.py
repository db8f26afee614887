"""Virtio without a transport and without I/O: rings, chains, and the base of every device."""

from instar.virtio.device import VirtioDevice
from instar.virtio.queue import Chain, Queue
from instar.virtio.state import QueueState

__all__ = ["Chain", "Queue", "QueueState", "VirtioDevice"]
