"""Character devices."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

from instar.chardev.ringbuf import RingChardev
from instar.errors import CommandError
from instar.monitor.chardev_backend import ChardevBackend, option_argument
from instar.monitor.command import Arg, Hmp, command

if TYPE_CHECKING:
    from instar.chardev.base import Chardev
    from instar.monitor.context import Context

_MAX_READ: Final = 1 << 20  # bytes a request


@dataclass
class ChardevInfo:
    """One character device."""

    frontend_open: Annotated[bool, Arg("Whether a device or monitor uses it.")]
    filename: Annotated[str, Arg("Where its bytes go.")]
    label: Annotated[str, Arg("Unique name.")]


@dataclass
class ChardevReturn:
    """What is to be known of a character device that was made."""

    pty: Annotated[str | None, Arg("Of a pty: what to open.")] = None


def _chardevs(devices: list[ChardevInfo]) -> str:
    return "".join(f"{device.label}: filename={device.filename}\n" for device in devices)


@command(hmp=Hmp("info chardev", _chardevs))
def query_chardev(ctx: Context) -> list[ChardevInfo]:
    """Show the character devices.

    -> {"execute": "query-chardev"}
    <- {"return": [{"frontend-open": false, "filename": "null", "label": "serial0"},
                   {"frontend-open": false, "filename": "ringbuf", "label": "ring0"}]}

    (instar) info chardev
    serial0: filename=null
    ring0: filename=ringbuf
    """
    return [
        ChardevInfo(frontend_open=device.frontend_open, filename=device.filename, label=name)
        for name, device in ctx.chardevs.items()
    ]


@command()
def chardev_add(
    ctx: Context,
    *,
    id: Annotated[str, Arg("Unique name.")],  # noqa: A002 - the word on the wire
    backend: Annotated[ChardevBackend, Arg("Kind and options.")],
) -> ChardevReturn:
    """Make a character device; updates keep it, although no command line names it.

    -> {"execute": "chardev-add", "arguments": {"id": "c1", "backend": {"type": "null", "data": {}}}}
    <- {"return": {}}
    """
    return _returned(ctx.add_chardev(option_argument(id, backend)))


@command(name="hmp-chardev-add", qmp=False, hmp=Hmp("chardev-add"))
def hmp_chardev_add(
    ctx: Context, *, args: Annotated[str, Arg("As after -chardev.", form="rest")]
) -> str:
    """Make a character device, as -chardev does.

    (instar) chardev-add null,id=c1
    """
    made = _returned(ctx.add_chardev(args))
    return f"char device redirected to {made.pty}\n" if made.pty else ""


@command(hmp=Hmp("chardev-remove"))
def chardev_remove(
    ctx: Context,
    *,
    id: Annotated[str, Arg("Its name.")],  # noqa: A002 - the word on the wire
) -> None:
    """Close a character device that no device or monitor uses.

    -> {"execute": "chardev-remove", "arguments": {"id": "serial0"}}
    <- {"return": {}}

    (instar) chardev-remove serial0
    """
    ctx.remove_chardev(id)


@command()
def chardev_window_size_changed(
    ctx: Context,
    *,
    id: Annotated[str, Arg("Its name.")],  # noqa: A002 - the word on the wire
    cols: Annotated[int, Arg("Columns.", ge=0, le=0xFFFF)],
    rows: Annotated[int, Arg("Rows.", ge=0, le=0xFFFF)],
) -> None:
    """Tell the size of the terminal at the other end; a virtconsole passes it on to the guest. Updates keep it.

    For sockets, where nobody else can tell. Of stdio and pty the host's own terminal counts as soon as it changes.

    -> {"execute": "chardev-window-size-changed", "arguments": {"id": "serial0", "cols": 80, "rows": 24}}
    <- {"return": {}}
    """
    device = ctx.chardevs.get(id)
    if device is None:
        raise CommandError(f"Chardev '{id[:64]}' not found")
    device.resize(cols, rows)


@command(hmp=Hmp("ringbuf_write"))
def ringbuf_write(
    ctx: Context,
    *,
    device: Annotated[str, Arg("Name of a ringbuf.")],
    data: Annotated[str, Arg("What to write.", form="rest")],
    format: Annotated[  # noqa: A002 - the word on the wire
        Literal["utf8", "base64"], Arg("How data is written.", flag="f")
    ] = "utf8",
) -> None:
    """Write to the buffer of a ringbuf; the oldest bytes are forgotten.

    -> {"execute": "ringbuf-write", "arguments": {"device": "ring0", "data": "abc"}}
    <- {"return": {}}

    (instar) ringbuf_write ring0 abc
    """
    ring = _ring(ctx, device)
    try:
        content = data.encode() if format == "utf8" else base64.b64decode(data, validate=True)
    except binascii.Error as e:
        raise CommandError(f"Parameter 'data' is not base64: {e}") from e
    except UnicodeEncodeError as e:
        raise CommandError("Parameter 'data' has half a surrogate pair; use base64") from e
    ring.write(content)


@command(
    hmp=Hmp("ringbuf_read", lambda text: text if text.endswith("\n") or not text else text + "\n")
)
def ringbuf_read(
    ctx: Context,
    *,
    device: Annotated[str, Arg("Name of a ringbuf.")],
    size: Annotated[int, Arg("Most bytes to read.", unit="bytes", ge=1, le=_MAX_READ)],
    format: Annotated[  # noqa: A002 - the word on the wire
        Literal["utf8", "base64"], Arg("How data is returned.", flag="f")
    ] = "utf8",
) -> str:
    """Read from the buffer of a ringbuf; what was read is forgotten. What is no UTF-8 is replaced.

    -> {"execute": "ringbuf-read", "arguments": {"device": "ring0", "size": 1000}}
    <- {"return": "abc"}

    (instar) ringbuf_read ring0 1000
    abc
    """
    data = _ring(ctx, device).take(size)
    return data.decode(errors="replace") if format == "utf8" else base64.b64encode(data).decode()


def _ring(ctx: Context, ident: str) -> RingChardev:
    device = ctx.chardevs.get(ident)
    if device is None:
        raise CommandError(f"Device '{ident[:64]}' not found")
    ring = device.parts()[0]  # behind a mux it is the first
    if not isinstance(ring, RingChardev):
        raise CommandError(f"{ident} is not a ringbuf device")
    return ring


def _returned(device: Chardev) -> ChardevReturn:
    filename = device.filename
    return ChardevReturn(
        pty=filename.removeprefix("pty:") if filename.startswith("pty:") else None
    )
