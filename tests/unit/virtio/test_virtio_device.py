"""What a class of devices must declare."""

from __future__ import annotations

import pytest

from instar.virtio.device import VirtioDevice


def test_queue_without_handler_is_refused_at_class_creation():
    with pytest.raises(TypeError, match=r"Broken has no on_events\(\)"):
        type("Broken", (VirtioDevice,), {"__slots__": (), "queues": ("events",)})


def test_base_offers_nothing():
    device = VirtioDevice("x")
    assert (device.offered(), device.config(), device.handlers) == (0, b"", ())
