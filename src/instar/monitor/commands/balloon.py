"""The memory balloon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from instar.errors import CommandError
from instar.monitor.command import CHANGEABLE, Arg, Hmp, command

if TYPE_CHECKING:
    from instar.monitor.context import Balloon, Context


class DeviceNotActiveError(CommandError):
    """There is no balloon."""

    qmp_class = "DeviceNotActive"


@dataclass
class BalloonInfo:
    """The memory balloon."""

    actual: Annotated[int, Arg("RAM that the guest has kept.", unit="bytes")]
    x_stats: Annotated[
        dict[str, object],
        Arg(
            "What the guest told of its memory after the last query, named as QEMU's guest-stats."
        ),
    ]


def _balloon(ctx: Context) -> Balloon:
    if not ctx.machine.balloon.present:
        raise DeviceNotActiveError("No balloon device has been activated")
    return ctx.machine.balloon


def _info(info: BalloonInfo) -> str:
    told = "".join(f" {name[5:]}={value}" for name, value in info.x_stats.items())
    return f"balloon: actual={info.actual >> 20}{told}\n"


@command(hmp=Hmp("info balloon", _info))
def query_balloon(ctx: Context) -> BalloonInfo:
    """Show how much RAM the guest has kept.

    -> {"execute": "query-balloon"}
    <- {"return": {"actual": 134217728, "x-stats": {"stat-free-memory": 73400320}}}

    (instar) info balloon
    balloon: actual=128 free-memory=73400320
    """
    balloon = _balloon(ctx)
    return BalloonInfo(actual=balloon.actual, x_stats=dict(balloon.stats))


@command(allowed_in=CHANGEABLE)
def balloon(
    ctx: Context,
    *,
    value: Annotated[int, Arg("RAM that the guest shall make do with.", unit="bytes")],
) -> None:
    """Ask the guest to give RAM back, or to take it again.

    The guest does it when it can: BALLOON_CHANGE tells.

    -> {"execute": "balloon", "arguments": {"value": 67108864}}
    <- {"return": {}}
    """
    device = _balloon(ctx)
    if value <= 0:
        raise CommandError("Parameter 'target' expects a size")
    device.set_target(value)


@command(qmp=False, hmp=Hmp("balloon"), allowed_in=CHANGEABLE)
def balloon_mib(
    ctx: Context,
    *,
    value: Annotated[int, Arg("RAM that the guest shall make do with.", unit="MiB")],
) -> None:
    """Ask the guest to give RAM back, or to take it again.

    (instar) balloon 64
    """
    balloon(ctx, value=value << 20)
