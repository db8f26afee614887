"""Limits of disks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from instar.block.limits import Limits
from instar.monitor.command import REQUIRED, SETTLED, Arg, Hmp, Member, ObjectType, command

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypedDict

    from instar.block.throttle import Group
    from instar.monitor.context import Context

    class Shown(TypedDict, total=False):
        """Fields of LimitsInfo."""

        bps: int
        bps_rd: int
        bps_wr: int
        iops: int
        iops_rd: int
        iops_wr: int
        bps_max: int | None
        bps_rd_max: int | None
        bps_wr_max: int | None
        iops_max: int | None
        iops_rd_max: int | None
        iops_wr_max: int | None
        bps_max_length: int | None
        bps_rd_max_length: int | None
        bps_wr_max_length: int | None
        iops_max_length: int | None
        iops_rd_max_length: int | None
        iops_wr_max_length: int | None
        iops_size: int | None
        group: str | None


# QEMU's words for the limits, in the order of the table.
_WORDS: Final = ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")
_UNITS: Final = ("bytes",) * 3 + ("requests",) * 3
_PARTS: Final = ("all requests", "reads", "writes") * 2


def _rate(name: str, what: str) -> Arg:
    return Arg(f"{what} a second; 0: no limit.", name=name)


def _peak(name: str, what: str) -> Arg:
    return Arg(f"{what} a second in a burst; absent: no bursts.", name=name)


def _length(name: str) -> Arg:
    return Arg("Longest burst at its peak.", unit="s", name=name)


@dataclass
class LimitsInfo:
    """What a disk may do, as QEMU's BlockDeviceInfo says it."""

    bps: Annotated[int, _rate("bps", "Bytes")] = 0
    bps_rd: Annotated[int, _rate("bps_rd", "Bytes read")] = 0
    bps_wr: Annotated[int, _rate("bps_wr", "Bytes written")] = 0
    iops: Annotated[int, _rate("iops", "Requests")] = 0
    iops_rd: Annotated[int, _rate("iops_rd", "Reads")] = 0
    iops_wr: Annotated[int, _rate("iops_wr", "Writes")] = 0
    bps_max: Annotated[int | None, _peak("bps_max", "Bytes")] = None
    bps_rd_max: Annotated[int | None, _peak("bps_rd_max", "Bytes read")] = None
    bps_wr_max: Annotated[int | None, _peak("bps_wr_max", "Bytes written")] = None
    iops_max: Annotated[int | None, _peak("iops_max", "Requests")] = None
    iops_rd_max: Annotated[int | None, _peak("iops_rd_max", "Reads")] = None
    iops_wr_max: Annotated[int | None, _peak("iops_wr_max", "Writes")] = None
    bps_max_length: Annotated[int | None, _length("bps_max_length")] = None
    bps_rd_max_length: Annotated[int | None, _length("bps_rd_max_length")] = None
    bps_wr_max_length: Annotated[int | None, _length("bps_wr_max_length")] = None
    iops_max_length: Annotated[int | None, _length("iops_max_length")] = None
    iops_rd_max_length: Annotated[int | None, _length("iops_rd_max_length")] = None
    iops_wr_max_length: Annotated[int | None, _length("iops_wr_max_length")] = None
    iops_size: Annotated[
        int | None,
        Arg(
            "A larger request counts as several; absent: none does.",
            unit="bytes",
            name="iops_size",
        ),
    ] = None
    group: Annotated[
        str | None, Arg("Disks of one group share the limits; absent: it has none.")
    ] = None


def limits_of(group: Group | None) -> Shown:
    """Return the fields of LimitsInfo for a disk of ``group``."""
    if group is None:
        return {}
    limits = group.limits
    shown: dict[str, object] = dict(zip(_WORDS, limits.rates, strict=True))
    for word, peak, seconds in zip(_WORDS, limits.peaks, limits.seconds, strict=True):
        if peak:
            shown |= {f"{word}_max": peak, f"{word}_max_length": seconds}
    shown |= {"iops_size": limits.iops_size or None, "group": group.name}
    return shown  # type: ignore[return-value]


def limits_line(info: LimitsInfo) -> str:
    """Return the line of ``info block``, "" for a disk without limits."""
    if info.group is None:
        return ""
    words = [
        f"{prefix}{part}{suffix}"
        for prefix in ("bps", "iops")
        for suffix in ("", "_max")
        for part in ("", "_rd", "_wr")
    ]
    values = [f"{word}={getattr(info, word) or 0}" for word in [*words, "iops_size"]]
    return f"    I/O throttling:   {' '.join(values)} group={info.group}\n"


def _members() -> tuple[Member, ...]:
    named = [
        Member("device", "device", str, Arg("Name of the drive."), None),
        Member(
            "id", "id", str, Arg("Name or path of the guest's device; instead of device."), None
        ),
    ]
    columns = (
        ("", REQUIRED, "{unit} a second, {part}; 0: no limit."),
        ("_max", None, "{unit} a second in a burst, {part}; 0: no bursts."),
        ("_max_length", None, "How long a burst of {part} may last at its peak."),
    )
    for suffix, default, doc in columns:
        for word, unit, part in zip(_WORDS, _UNITS, _PARTS, strict=True):
            text = doc.format(unit=unit.capitalize(), part=part)
            arg = Arg(text, unit="s" if suffix == "_max_length" else "")
            named.append(Member(word + suffix, word + suffix, int, arg, default))
    size = Arg("A request of more bytes counts as several; 0: never.", unit="bytes")
    named.append(Member("iops_size", "iops_size", int, size, None))
    group = Arg(
        "Disks of one group share the limits. Default: the one it is in, or one of its own."
    )
    named.append(Member("group", "group", str, group, None))
    return tuple(named)


_THROTTLE: Final = ObjectType("BlockIOThrottle", _members())


def _limits(values: Mapping[str, object]) -> Limits:
    def column(suffix: str, default: int) -> tuple[int, ...]:
        found = [values.get(word + suffix, default) for word in _WORDS]
        return tuple(value for value in found if isinstance(value, int))

    size = values.get("iops_size", 0)
    return Limits(
        column("", 0),
        column("_max", 0),
        column("_max_length", 1),
        iops_size=size if isinstance(size, int) else 0,
    )


@command(name="block_set_io_throttle", takes=_THROTTLE, allowed_in=SETTLED)
def block_set_io_throttle(ctx: Context, values: Mapping[str, object]) -> None:
    """Change what a disk, and all disks of its group, may do in a second; all 0: the disk leaves its group.

    Requests that were held back begin as soon as the new limits allow. Updates keep the limits, whatever the next
    program's command line says.

    -> {"execute": "block_set_io_throttle", "arguments": {"device": "disk0", "bps": 0, "bps_rd": 0, "bps_wr": 1048576,
        "iops": 100, "iops_rd": 0, "iops_wr": 0, "iops_max": 500, "iops_max_length": 10}}
    <- {"return": {}}
    """
    ctx.disk_limiter.limit(
        drive=str(values.get("device", "")),
        device=str(values.get("id", "")),
        limits=_limits(values),
        group=str(values.get("group", "")),
    )


@command(
    name="hmp-block-set-io-throttle",
    qmp=False,
    hmp=Hmp("block_set_io_throttle"),
    allowed_in=SETTLED,
)
def hmp_block_set_io_throttle(  # noqa: PLR0913 - the command's words
    ctx: Context,
    *,
    device: Annotated[str, Arg("Name of the drive.")],
    bps: Annotated[int, Arg("Bytes a second; 0: no limit.")],
    bps_rd: Annotated[int, Arg("Bytes read a second.")],
    bps_wr: Annotated[int, Arg("Bytes written a second.")],
    iops: Annotated[int, Arg("Requests a second.")],
    iops_rd: Annotated[int, Arg("Reads a second.")],
    iops_wr: Annotated[int, Arg("Writes a second.")],
) -> None:
    """Change what a disk, and all disks of its group, may do in a second.

    (instar) block_set_io_throttle disk0 0 0 1048576 100 0 0
    """
    rates = (bps, bps_rd, bps_wr, iops, iops_rd, iops_wr)
    ctx.disk_limiter.limit(drive=device, device="", limits=Limits(rates), group="")
