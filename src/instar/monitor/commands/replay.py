"""Stops at an instruction count (``-icount``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from instar.monitor.command import Arg, Hmp, command

if TYPE_CHECKING:
    from instar.monitor.context import Context


@dataclass
class ReplayInfo:
    """Where execution stands."""

    mode: Annotated[Literal["none", "record", "play"], Arg("Nothing is recorded: none.")]
    icount: Annotated[int, Arg("Instructions executed so far; -1 without -icount.")]
    break_icount: Annotated[int | None, Arg("Where the VM will stop; absent if nowhere.")] = None


def _replay(info: ReplayInfo) -> str:
    if info.icount < 0:
        return "No instruction count\n"
    at = f", break at {info.break_icount}" if info.break_icount is not None else ""
    return f"instruction count = {info.icount}{at}\n"


@command(hmp=Hmp("info replay", _replay))
def query_replay(ctx: Context) -> ReplayInfo:
    """Show the instruction count.

    -> {"execute": "query-replay"}
    <- {"return": {"mode": "none", "icount": 1000}}

    (instar) info replay
    instruction count = 1000
    """
    at = ctx.machine.replay_break
    return ReplayInfo(mode="none", icount=ctx.machine.icount, break_icount=at if at >= 0 else None)


@command(hmp=Hmp("replay_break"))
def replay_break(
    ctx: Context, *, icount: Annotated[int, Arg("Instruction count to stop at.", ge=0)]
) -> None:
    """Stop the VM when it has executed exactly so many instructions.

    -> {"execute": "replay-break", "arguments": {"icount": 2000}}
    <- {"return": {}}

    (instar) replay_break 2000
    """
    ctx.machine.set_replay_break(icount)


@command(hmp=Hmp("replay_delete_break"))
def replay_delete_break(ctx: Context) -> None:
    """Forget the stop of replay_break.

    -> {"execute": "replay-delete-break"}
    <- {"return": {}}

    (instar) replay_delete_break
    """
    ctx.machine.set_replay_break(-1)
