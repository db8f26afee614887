"""Make a character device from its kind and options."""

from __future__ import annotations

from instar.chardev.file import FileChardev
from instar.chardev.mux import MuxChardev
from instar.chardev.null import NullChardev
from instar.chardev.stdio import StdioChardev
from instar.chardev.unix import SocketChardev
from instar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from instar.chardev.base import Chardev, FdTable
    from instar.loop import Loop

    Options = Mapping[str, object]


def create(
    kind: str,
    ident: str,
    options: Options,
    loop: Loop,
    fds: FdTable,
    *,
    announce: Callable[[str], object] | None = None,
) -> Chardev:
    """Return the device, over the descriptors of the program before if ``fds`` has some of its id.

    Args:
        kind: ``stdio``, ``socket``, ``file`` or ``null``.
        ident: Unique id.
        options: ``path`` (str), ``server``, ``wait``, ``append``, ``signal``, ``mux`` (bool); those of other kinds are
            ignored. With ``mux`` the result takes several front ends, see :func:`front_end`.
        loop: The main loop.
        fds: The table of named descriptors.
        announce: Told that we block until a client connects (``wait``).

    Raises:
        ConfigError: Kind or options are impossible.
        HostError: The host refused. In both cases nothing is left behind.
    """
    device = _create(kind, ident, options, loop, fds)
    if isinstance(device, SocketChardev) and _on(options, "wait") and not device.adopted:
        if announce is not None:
            announce(f"waiting for connection on: {device.filename}")
        device.wait_for_client()
    return MuxChardev(device, loop) if _on(options, "mux") else device


def front_end(device: Chardev, role: str) -> Chardev:
    """Return what a front end attaches to: the device itself, or a share of it if it is a mux.

    Args:
        device: What :func:`create` returned.
        role: ``serial`` or ``monitor``; a monitor's output waits while it is not in focus.
    """
    return device.share(role) if isinstance(device, MuxChardev) else device


def _create(kind: str, ident: str, options: Options, loop: Loop, fds: FdTable) -> Chardev:
    if kind == "null":
        return NullChardev(ident, loop)
    if kind == "stdio":
        return StdioChardev(ident, loop, fds, signal=_on(options, "signal"))
    path = str(options.get("path") or "")
    if kind == "socket":
        return SocketChardev(ident, path, loop, fds, server=_on(options, "server"))
    if kind == "file":
        return FileChardev(ident, path, loop, fds, append=_on(options, "append"))
    raise ConfigError(
        f"chardev {ident}: unknown kind {kind}, allowed are file, null, socket, stdio"
    )


def _on(options: Options, name: str) -> bool:
    return bool(options.get(name, False))
