"""Character devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from instar.monitor.command import Arg, Hmp, command

if TYPE_CHECKING:
    from instar.monitor.context import Context


@dataclass
class ChardevInfo:
    """One character device."""

    frontend_open: Annotated[bool, Arg("Whether a device or monitor uses it.")]
    filename: Annotated[str, Arg("Where its bytes go.")]
    label: Annotated[str, Arg("Unique name.")]


def _chardevs(devices: list[ChardevInfo]) -> str:
    return "".join(f"{device.label}: filename={device.filename}\n" for device in devices)


@command(hmp=Hmp("info chardev", _chardevs))
def query_chardev(ctx: Context) -> list[ChardevInfo]:
    """Show the character devices.

    -> {"execute": "query-chardev"}
    <- {"return": [{"frontend-open": false, "filename": "null", "label": "serial0"}]}

    (instar) info chardev
    serial0: filename=null
    """
    return [
        ChardevInfo(frontend_open=device.frontend_open, filename=device.filename, label=name)
        for name, device in ctx.chardevs.items()
    ]
