"""Power off and reset."""

from __future__ import annotations

import pytest

from instar.devices.syscon import Syscon


@pytest.mark.parametrize(
    ("size", "value", "calls"),
    [
        (4, 0x5555, ["poweroff"]),
        (2, 0x5555, ["poweroff"]),
        (4, 0x0007_3333, [7]),
        (4, 0x7777, ["reset"]),
        (4, 0, []),
        (4, 0x1234, []),
        (1, 0x5555, []),
        (8, 0x5555, []),
    ],
)
def test_write_calls_back(size, value, calls):
    heard = []
    syscon = Syscon(lambda: heard.append("poweroff"), heard.append, lambda: heard.append("reset"))
    syscon.mmio_write(0, size, value)
    syscon.mmio_write(4, size, value)
    syscon.reset()
    assert heard == calls
    assert syscon.mmio_read(0, 4) == 0
