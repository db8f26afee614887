"""Limits changed at run time: which disk is meant, and when they begin to count."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from instar.block.limits import Limits
from instar.block.request import BlockRequest
from instar.block.throttle import Throttles
from instar.errors import CommandError
from instar.machine.limiter import DiskLimiter
from instar.testing.fakes import FakeClock

ONE = Limits((0, 0, 0, 1, 0, 0))


class FakeMachine:
    def __init__(self) -> None:
        self.block_devices = [
            SimpleNamespace(id="d0", device="/machine/peripheral/blk/virtio-backend"),
            SimpleNamespace(id="d1", device=""),
        ]
        self.vcpus = SimpleNamespace(parked=lambda look: look())
        self.waiting: list = []

    def locked(self, callback) -> None:
        callback()

    def when_running(self, callback) -> None:
        self.waiting.append(callback)


@pytest.fixture
def world():
    machine, clock = FakeMachine(), FakeClock()
    throttles = Throttles(clock, clock)
    begun: list[BlockRequest] = []
    disks = [throttles.add(disk, begun.append) for disk in ("d0", "d1")]
    return SimpleNamespace(
        machine=machine, disks=disks, begun=begun, limiter=DiskLimiter(machine, throttles)
    )


@pytest.mark.parametrize(
    ("drive", "device"),
    [("d0", ""), ("", "blk"), ("", "/machine/peripheral/blk/virtio-backend")],
)
def test_disk_is_found_by_its_name_or_its_device(world, drive, device):
    world.limiter.limit(drive=drive, device=device, limits=ONE, group="g")
    assert world.disks[0].group.name == "g"
    assert world.disks[1].group is None


@pytest.mark.parametrize(
    ("drive", "device", "text"),
    [
        ("", "", "exactly one of 'device' and 'id' is needed"),
        ("d0", "blk", "exactly one of 'device' and 'id' is needed"),
        ("d2", "", "Device 'd2' not found"),
        ("", "d0", "Device 'd0' not found"),
    ],
)
def test_disk_that_cannot_be_found_is_refused(world, drive, device, text):
    with pytest.raises(CommandError, match=f"^{text}$"):
        world.limiter.limit(drive=drive, device=device, limits=ONE, group="")


def test_held_requests_begin_only_when_the_machine_runs(world):
    world.limiter.limit(drive="d0", device="", limits=ONE, group="")
    requests = [BlockRequest("read", 0, 512, [], print) for _ in range(3)]
    assert [world.disks[0].holds(request) for request in requests] == [False, True, True]
    world.limiter.limit(drive="d0", device="", limits=Limits(), group="")
    assert world.begun == []
    world.machine.waiting[-1]()
    assert world.begun == requests[1:]
