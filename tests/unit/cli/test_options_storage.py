"""Disks, devices and their slots."""

from __future__ import annotations

import pytest

from instar.cli.options import (
    BlockConfig,
    Config,
    RngConfig,
    VirtioBlkConfig,
    VirtioRngConfig,
    parse,
)
from instar.errors import ConfigError


def config(line: str) -> Config:
    result = parse(line.split())
    assert isinstance(result, Config)
    return result


def test_drive_without_interface_makes_its_device() -> None:
    made = config("-drive file=a.img,format=raw,readonly=on,discard=unmap")
    block = BlockConfig(
        kind="drive", ident="virtio0", filename="a.img", read_only=True, discard=True
    )
    assert made.blocks == [block]
    assert made.devices == [VirtioBlkConfig(slot=0, drive="virtio0")]


def test_drive_with_a_device_is_named_by_it() -> None:
    made = config("-drive if=none,id=d0,file=a -device virtio-blk-device,drive=d0,id=b,serial=S1")
    assert made.devices == [VirtioBlkConfig(slot=0, drive="d0", ident="b", serial="S1")]
    assert made.warnings == []


def test_drive_that_nobody_uses_is_a_warning() -> None:
    assert config("-drive if=none,file=a").warnings == ["drive 'none0' is used by nothing"]


def test_blockdev_over_a_named_file_node_becomes_one_disk() -> None:
    made = config(
        "-blockdev raw,node-name=d,file=f,discard=unmap "
        "-blockdev driver=file,node-name=f,filename=/a,discard=unmap"
    )
    assert made.blocks == [BlockConfig(kind="blockdev", ident="d", filename="/a", discard=True)]


def test_blockdev_over_a_file_node_that_ignores_discards_ignores_them() -> None:
    made = config(
        "-blockdev file,node-name=f,filename=/a -blockdev raw,node-name=d,file=f,discard=unmap"
    )
    assert not made.blocks[0].discard


def test_blockdev_of_a_file_alone_is_a_disk() -> None:
    made = config("-blockdev file,node-name=f,filename=/a -device virtio-blk-device,drive=f")
    assert [block.id for block in made.blocks] == ["f"]


def test_devices_without_bus_take_the_lowest_free_slots() -> None:
    made = config(
        "-device virtio-rng-device,id=a -device virtio-rng-device,bus=virtio-mmio-bus.0 "
        "-drive file=x -device virtio-rng-device,bus=virtio-mmio-bus.7"
    )
    assert [device.slot for device in made.devices] == [1, 2, 0, 7]


def test_rng_of_a_file_is_named_by_its_device() -> None:
    made = config("-object rng-random,id=r,filename=/dev/hwrng -device virtio-rng-device,rng=r")
    assert made.rngs == [RngConfig(kind="random", ident="r", filename="/dev/hwrng")]
    assert made.devices == [VirtioRngConfig(slot=0, rng="r")]


def test_rng_without_a_file_has_the_kinds_default() -> None:
    made = config("-object rng-random,id=r -object rng-builtin,id=s")
    assert [rng.filename for rng in made.rngs] == ["/dev/urandom", ""]
    assert made.warnings == ["rng 'r' is used by nothing", "rng 's' is used by nothing"]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("-device virtio-blk-device,drive=d", "there is no -drive or -blockdev with that id"),
        ("-device virtio-rng-device,rng=r", "there is no -object rng-"),
        (
            "-drive file=a,id=d -device virtio-blk-device,drive=d",
            "drive 'd' is used by two devices",
        ),
        ("-drive file=a,id=d -drive file=b,id=d", "two disks have the id 'd'"),
        ("-drive id=d,file=a -blockdev file,node-name=d,filename=a", "two disks have the id 'd'"),
        (
            "-device virtio-rng-device,id=a -device virtio-rng-device,id=a",
            "two devices have the id 'a'",
        ),
        (" ".join(["-device virtio-rng-device"] * 9), "9 devices do not fit: the board has 8"),
        (
            " ".join(["-device virtio-rng-device,bus=virtio-mmio-bus.3"] * 2),
            "asked for by two devices",
        ),
        ("-device virtio-rng-device,bus=virtio-mmio-bus.8", "there is no bus 'virtio-mmio-bus.8'"),
        ("-device virtio-rng-device,bus=virtio-mmio-bus.-1", "there is no bus"),
        ("-drive if=none,id=d,file=a -device virtio-blk-device,drive=d,serial=ä", "is not ASCII"),
        ("-device virtio-blk-device,drive=d,serial=123456789012345678901", "0 to 20 bytes"),
        ("-blockdev raw,node-name=d", "needs either file=NODE or file.driver=file,file.filename"),
        ("-blockdev raw,node-name=d,file.filename=/a", "needs either"),
        ("-blockdev raw,node-name=d,file.driver=file", "needs either"),
        ("-blockdev raw,node-name=d,file=d", "names file=d, which is no -blockdev file node"),
        (
            "-blockdev file,node-name=f,filename=/a -blockdev raw,node-name=d,file=f,file.driver=file",
            "needs either",
        ),
        (
            "-blockdev file,node-name=f,filename=/a,read-only=on -blockdev raw,node-name=d,file=f",
            "node 'd' is writable, but its file node 'f' is read-only=on",
        ),
        (
            "-blockdev file,node-name=f,filename=/ -blockdev raw,node-name=d,file=f -blockdev raw,node-name=e,file=f",
            "file node 'f' has two users, 'd' and 'e'",
        ),
    ],
)
def test_disks_and_devices_with_a_mistake_are_refused(line: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        parse(line.split())
