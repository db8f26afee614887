"""Disks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from instar.monitor.command import Arg, Hmp, command

if TYPE_CHECKING:
    from instar.monitor.context import Context


@dataclass
class ImageInfo:
    """An image file."""

    virtual_size: Annotated[int, Arg("What the guest sees.", unit="bytes")]
    filename: Annotated[str, Arg("The host's file.")]
    format: Annotated[str, Arg("Its format.")]


@dataclass
class InsertedInfo:
    """What is in a drive."""

    image: Annotated[ImageInfo, Arg("The image.")]
    ro: Annotated[bool, Arg("Whether the guest may only read.")]
    drv: Annotated[str, Arg("Format.")]
    file: Annotated[str, Arg("The host's file.")]
    node_name: Annotated[str, Arg("Name of the node.")]


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
    )


@command(hmp=Hmp("info block", _blocks))
def query_block(ctx: Context) -> list[BlockInfo]:
    """Show the disks.

    -> {"execute": "query-block"}
    <- {"return": [{"device": "disk0", "locked": false, "removable": false, "inserted": {"image":
        {"virtual-size": 1048576, "filename": "disk.img", "format": "raw"}, "ro": false, "drv": "raw",
        "file": "disk.img", "node-name": "disk0"}, "type": "unknown", "qdev": "/machine/virtio-mmio/0"}]}

    (instar) info block
    disk0: disk.img (raw)
        Attached to:      /machine/virtio-mmio/0
        Cache mode:       writeback
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
            ),
            type="unknown",
            qdev=disk.device or None,
        )
        for disk in ctx.machine.block_devices
    ]
