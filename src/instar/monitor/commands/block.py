"""Disks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from instar.errors import CommandError
from instar.monitor.command import SETTLED, Arg, Hmp, command
from instar.monitor.commands.throttle import LimitsInfo, limits_line, limits_of
from instar.units import parse_size

if TYPE_CHECKING:
    from instar.monitor.context import Context


@dataclass
class ImageInfo:
    """An image file."""

    virtual_size: Annotated[int, Arg("What the guest sees.", unit="bytes")]
    filename: Annotated[str, Arg("The host's file.")]
    format: Annotated[str, Arg("Its format.")]


@dataclass
class Medium:
    """What is in a drive, its limits apart."""

    image: Annotated[ImageInfo, Arg("The image.")]
    ro: Annotated[bool, Arg("Whether the guest may only read.")]
    drv: Annotated[str, Arg("Format.")]
    file: Annotated[str, Arg("The host's file.")]
    node_name: Annotated[str, Arg("Name of the node.")]


@dataclass
class InsertedInfo(LimitsInfo, Medium):
    """What is in a drive."""


@dataclass
class BlockInfo:
    """One drive."""

    device: Annotated[str, Arg("Name of the drive.")]
    locked: Annotated[bool, Arg("Whether the guest has locked the medium.")]
    removable: Annotated[bool, Arg("Whether the medium can be taken out.")]
    inserted: Annotated[InsertedInfo, Arg("The medium.")]
    type: Annotated[str, Arg("Not used; always unknown.")]
    qdev: Annotated[
        str | None, Arg("Path of the guest's device; absent if none uses the drive.")
    ] = None


def _blocks(blocks: list[BlockInfo]) -> str:
    return "\n".join(_block(block) for block in blocks)


def _block(block: BlockInfo) -> str:
    medium = block.inserted
    mode = ", read-only" if medium.ro else ""
    attached = f"    Attached to:      {block.qdev}\n" if block.qdev else ""
    return (
        f"{block.device}: {medium.file} ({medium.drv}{mode})\n{attached}"
        "    Cache mode:       writeback\n"
        f"{limits_line(medium)}"
    )


@command(hmp=Hmp("info block", _blocks))
def query_block(ctx: Context) -> list[BlockInfo]:
    """Show the disks.

    -> {"execute": "query-block"}
    <- {"return": [{"device": "disk0", "locked": false, "removable": false, "inserted": {"image":
        {"virtual-size": 1048576, "filename": "disk.img", "format": "raw"}, "ro": false, "drv": "raw",
        "file": "disk.img", "node-name": "disk0", "bps": 0, "bps_rd": 0, "bps_wr": 1048576, "iops": 0,
        "iops_rd": 0, "iops_wr": 0, "group": "disk0"}, "type": "unknown", "qdev": "/machine/virtio-mmio/0"}]}

    (instar) info block
    disk0: disk.img (raw)
        Attached to:      /machine/virtio-mmio/0
        Cache mode:       writeback
        I/O throttling:   bps=0 bps_rd=0 bps_wr=1048576 bps_max=0 bps_rd_max=0 bps_wr_max=0 iops=0 iops_rd=0 \
iops_wr=0 iops_max=0 iops_rd_max=0 iops_wr_max=0 iops_size=0 group=disk0
    """
    return [
        BlockInfo(
            device=disk.id,
            locked=False,
            removable=False,
            inserted=InsertedInfo(
                image=ImageInfo(virtual_size=disk.size, filename=disk.filename, format="raw"),
                ro=disk.read_only,
                drv="raw",
                file=disk.filename,
                node_name=disk.id,
                **limits_of(disk.throttle),
            ),
            type="unknown",
            qdev=disk.device or None,
        )
        for disk in ctx.machine.block_devices
    ]


# Counters of QEMU's BlockDeviceStats that nothing here can raise: requests are never merged, there are no zoned disks.
_NEVER = (
    "zone_append_bytes", "zone_append_operations", "zone_append_total_time_ns", "rd_merged", "wr_merged",
    "zone_append_merged", "unmap_merged", "failed_zone_append_operations", "invalid_rd_operations",
    "invalid_wr_operations", "invalid_zone_append_operations", "invalid_flush_operations", "invalid_unmap_operations",
)  # fmt: skip
_SHOWN = (
    "rd_bytes", "wr_bytes", "rd_operations", "wr_operations", "flush_operations", "wr_total_time_ns",
    "rd_total_time_ns", "flush_total_time_ns", "unmap_bytes", "unmap_operations", "unmap_total_time_ns",
)  # fmt: skip

_RESIZABLE = SETTLED - {"postmigrate"}  # then another program has the disk


@dataclass
class BlockStats:
    """What a drive counted."""

    device: Annotated[str, Arg("Name of the drive.")]
    node_name: Annotated[str, Arg("Name of the node.")]
    stats: Annotated[dict[str, object], Arg("QEMU's BlockDeviceStats; kept across updates.")]
    qdev: Annotated[
        str | None, Arg("Path of the guest's device; absent if none uses the drive.")
    ] = None


def _stats(drives: list[BlockStats]) -> str:
    return "".join(
        f"{drive.device}: {' '.join(f'{name}={drive.stats.get(name, 0)}' for name in _SHOWN)}\n"
        for drive in drives
    )


@command(hmp=Hmp("info blockstats", _stats))
def query_blockstats(ctx: Context) -> list[BlockStats]:
    """Show what the disks counted: bytes, operations and their total time.

    -> {"execute": "query-blockstats"}
    <- {"return": ...}

    (instar) info blockstats
    disk0: rd_bytes=512 wr_bytes=0 rd_operations=1 wr_operations=0 flush_operations=0 wr_total_time_ns=0 \
rd_total_time_ns=0 flush_total_time_ns=0 unmap_bytes=0 unmap_operations=0 unmap_total_time_ns=0
    """
    fixed: dict[str, object] = {
        **dict.fromkeys(_NEVER, 0),
        "account_invalid": True,
        "account_failed": True,
        "timed_stats": [],
    }
    return [
        BlockStats(
            device=disk.id,
            node_name=disk.id,
            stats={**disk.counters, **fixed},
            qdev=disk.device or None,
        )
        for disk in ctx.machine.block_devices
    ]


@command(name="block_resize", allowed_in=_RESIZABLE)
def block_resize(
    ctx: Context,
    *,
    size: Annotated[int, Arg("New size, a multiple of 512.", unit="bytes", ge=0)],
    device: Annotated[str | None, Arg("Name of the drive.")] = None,
    node_name: Annotated[str | None, Arg("Name of its node; instead of device.")] = None,
) -> None:
    """Make a disk larger or smaller while the guest uses it; the guest is told.

    Data behind the new end is lost. A block device of the host cannot grow.

    -> {"execute": "block_resize", "arguments": {"device": "disk0", "size": 2097152}}
    <- {"return": {}}
    """
    if (device is None) == (node_name is None):
        raise CommandError("exactly one of 'device' and 'node-name' is needed")
    ctx.machine.resize_disk(device or node_name or "", size)


@command(name="hmp-block-resize", qmp=False, hmp=Hmp("block_resize"), allowed_in=_RESIZABLE)
def hmp_block_resize(
    ctx: Context,
    *,
    device: Annotated[str, Arg("Name of the drive.")],
    size: Annotated[str, Arg("New size; MiB when there is no suffix.")],
) -> None:
    """Make a disk larger or smaller while the guest uses it.

    (instar) block_resize disk0 2G
    """
    ctx.machine.resize_disk(device, parse_size(size, "M"))
