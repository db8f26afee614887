"""Guest memory: back ends, sizes, the address space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from instar.monitor.command import Arg, Hmp, command

if TYPE_CHECKING:
    from instar.monitor.context import Context, RegionInfo


@dataclass
class Memdev:
    """One memory back end."""

    share: Annotated[bool, Arg("Whether the bytes are shared with whoever has the descriptor.")]
    reserve: Annotated[bool, Arg("Whether swap space is reserved (never).")]
    prealloc: Annotated[bool, Arg("Whether all pages were touched at start.")]
    host_nodes: Annotated[list[int], Arg("NUMA nodes it is bound to (none).")]
    size: Annotated[int, Arg("Size.", unit="bytes")]
    merge: Annotated[bool, Arg("Whether the host may merge equal pages.")]
    dump: Annotated[bool, Arg("Whether core dumps hold it.")]
    policy: Annotated[str, Arg("NUMA policy.")]
    id: Annotated[str, Arg("Unique name.")]


@dataclass
class MemoryInfo:
    """Memory sizes."""

    base_memory: Annotated[int, Arg("RAM given with -m.", unit="bytes")]
    plugged_memory: Annotated[int, Arg("RAM that was plugged in later.", unit="bytes")]


def _word(value: bool) -> str:  # noqa: FBT001 - it is the value to show
    return "true" if value else "false"


def _memdevs(devices: list[Memdev]) -> str:
    out: list[str] = []
    for device in devices:
        out.append(f"memory backend: {device.id}\n  size:  {device.size}\n")
        names = ("merge", "dump", "prealloc", "share", "reserve")
        out += [f"  {name}: {_word(getattr(device, name))}\n" for name in names]
        out.append(f"  policy: {device.policy}\n  host nodes:\n")
    return "".join(out) + "\n"


def _sizes(info: MemoryInfo) -> str:
    return f"base memory: {info.base_memory}\nplugged memory: {info.plugged_memory}\n"


@command(hmp=Hmp("info memdev", _memdevs))
def query_memdev(ctx: Context) -> list[Memdev]:
    """Show the memory back ends.

    -> {"execute": "query-memdev"}
    <- {"return": [{"share": true, "reserve": false, "prealloc": false, "host-nodes": [], "size": 134217728,
        "merge": false, "dump": true, "policy": "default", "id": "ram0"}]}

    (instar) info memdev
    memory backend: ram0
      size:  134217728
      merge: false
      dump: true
      prealloc: false
      share: true
      reserve: false
      policy: default
      host nodes:
    """
    return [
        Memdev(
            share=block.share,
            reserve=False,
            prealloc=block.prealloc,
            host_nodes=[],
            size=block.size,
            merge=False,
            dump=True,
            policy="default",
            id=block.id,
        )
        for block in ctx.machine.memory_backends
    ]


@command(hmp=Hmp("info memory_size_summary", _sizes))
def query_memory_size_summary(ctx: Context) -> MemoryInfo:
    """Show how much RAM the guest has.

    -> {"execute": "query-memory-size-summary"}
    <- {"return": {"base-memory": 134217728, "plugged-memory": 0}}

    (instar) info memory_size_summary
    base memory: 134217728
    plugged memory: 0
    """
    return MemoryInfo(base_memory=ctx.machine.ram_size, plugged_memory=0)


@command(qmp=False, hmp=Hmp("info mtree"))
def info_mtree(
    ctx: Context,
    *,
    flat: Annotated[
        bool, Arg("As the devices and harts see it, without layers.", flag="f")
    ] = False,
) -> str:
    """Show the guest's physical address space.

    (instar) info mtree -f
    FlatView #0
     AS "memory", root: system
     Root memory region: system
      0000000010000000-00000000100000ff (prio 0, i/o): serial0
      0000000080000000-0000000087ffffff (prio 0, ram): ram0
    """
    regions = sorted(ctx.machine.regions, key=lambda region: region.base)
    if flat:
        head = 'FlatView #0\n AS "memory", root: system\n Root memory region: system\n'
        return head + "".join(f"  {_region(region)}" for region in regions) + "\n"
    head = "address-space: memory\n  0000000000000000-ffffffffffffffff (prio 0, i/o): system\n"
    return head + "".join(f"    {_region(region)}" for region in regions) + "\n"


def _region(region: RegionInfo) -> str:
    kind = "ram" if region.is_ram else "i/o"
    last = region.base + region.size - 1
    return f"{region.base:016x}-{last:016x} (prio 0, {kind}): {region.name}\n"
