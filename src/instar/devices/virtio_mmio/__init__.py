"""The virtio transport over memory-mapped registers."""

from instar.devices.virtio_mmio.device import QUEUE_NOTIFY, REGION_SIZE, EmptySlot, VirtioMmio
from instar.devices.virtio_mmio.state import VirtioMmioState

__all__ = ["QUEUE_NOTIFY", "REGION_SIZE", "EmptySlot", "VirtioMmio", "VirtioMmioState"]
