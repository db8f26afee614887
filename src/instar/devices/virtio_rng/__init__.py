"""The entropy device."""

from instar.devices.virtio_rng.device import VirtioRng
from instar.devices.virtio_rng.entropy import FileEntropy, SystemEntropy, check_source
from instar.devices.virtio_rng.state import RngState

__all__ = ["FileEntropy", "RngState", "SystemEntropy", "VirtioRng", "check_source"]
