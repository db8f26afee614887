"""Limits of disks on the wire."""

from __future__ import annotations

import pytest
from monitor_fakes import FakeContext

from instar.block.limits import Limits
from instar.errors import BadArgumentError
from instar.monitor.command import QMP_COMMANDS, invoke, wire
from instar.monitor.commands.throttle import LimitsInfo, limits_line, limits_of

RATES = {"bps": 0, "bps_rd": 1, "bps_wr": 2, "iops": 0, "iops_rd": 3, "iops_wr": 4}


def throttle(**arguments: object) -> FakeContext:
    context = FakeContext()
    invoke(QMP_COMMANDS["block_set_io_throttle"], context, arguments)
    return context


def test_arguments_have_qemus_names():
    more = {
        "bps_rd_max": 5, "bps_rd_max_length": 6, "iops_wr_max": 7, "iops_size": 8, "group": "g", "id": "dev",
    }  # fmt: skip
    limits = Limits((0, 1, 2, 0, 3, 4), (0, 5, 0, 0, 0, 7), (1, 6, 1, 1, 1, 1), iops_size=8)
    assert throttle(**RATES, **more).disk_limiter.done == [("", "dev", limits, "g")]


def test_missing_rate_is_refused():
    with pytest.raises(BadArgumentError, match="Parameter 'iops_wr' is missing"):
        throttle(**{name: value for name, value in RATES.items() if name != "iops_wr"})


def test_limits_are_shown_by_qemus_names():
    group = FakeContext().machine.block_devices[0].throttle
    group.limits = Limits((9, 0, 0, 0, 3, 4), (10, 0, 0, 0, 0, 7), (6, 1, 1, 1, 1, 1), iops_size=8)
    info = LimitsInfo(**limits_of(group))
    assert wire(info) == {
        "bps": 9, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 3, "iops_wr": 4, "bps_max": 10,
        "bps_max_length": 6, "iops_wr_max": 7, "iops_wr_max_length": 1, "iops_size": 8, "group": "disk0",
    }  # fmt: skip
    assert "bps=9 bps_rd=0 bps_wr=0 bps_max=10" in limits_line(info)


def test_disk_without_limits_shows_zeros_and_no_line():
    info = LimitsInfo(**limits_of(None))
    assert wire(info) == dict.fromkeys(RATES, 0)
    assert limits_line(info) == ""
