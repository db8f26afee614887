"""Make a character device from its kind and options."""

from __future__ import annotations

from instar.chardev.address import InetAddress, UnixAddress
from instar.chardev.base import FD_OWNER
from instar.chardev.file import FileChardev
from instar.chardev.mux import MuxChardev
from instar.chardev.null import NullChardev
from instar.chardev.pipe import PipeChardev
from instar.chardev.pty import PtyChardev
from instar.chardev.ringbuf import DEFAULT_SIZE, RingChardev
from instar.chardev.stdio import StdioChardev
from instar.chardev.unix import SocketChardev
from instar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final

    from instar.chardev.base import Chardev, FdTable
    from instar.chardev.unix import Address
    from instar.loop import Loop

    Options = Mapping[str, object]

_OPENED: Final = ("file", "pipe", "pty")  # kinds that have a descriptor as long as they are


def create(  # noqa: PLR0913 - what a device needs from around it
    kind: str,
    ident: str,
    options: Options,
    loop: Loop,
    fds: FdTable,
    *,
    announce: Callable[[str], object] | None = None,
    resumed: bool = False,
    inert: bool = False,
) -> Chardev:
    """Return the device, over the descriptors of the program before if ``fds`` has some of its id.

    Args:
        kind: ``file``, ``null``, ``pipe``, ``pty``, ``ringbuf``, ``socket`` or ``stdio``.
        ident: Unique id.
        options: ``path`` (str), ``server``, ``wait``, ``append``, ``signal``, ``mux``, ``nodelay`` (bool), ``size``,
            ``reconnect_ms`` (int); ``host`` (str), ``port`` (int) and ``family`` (any, ipv4, ipv6) of a TCP socket,
            where ``host`` is what makes it one; ``tls`` (TlsCredentials) and ``reopen_on_cpr`` (bool). Those of other
            kinds are ignored. With ``mux`` the result takes several front ends, see :func:`front_end`.
        loop: The main loop.
        fds: The table of named descriptors.
        announce: Told that we block until a client connects (``wait``), and the name of a new terminal.
        resumed: There was a program before, which had this device.
        inert: In a rehearsal: make nothing on the host; what has no descriptor is refused.

    Raises:
        ConfigError: Kind or options are impossible, or it would have to be made in a rehearsal.
        HostError: The host refused. In both cases nothing is left behind.
    """
    if inert:
        _check_descriptor(kind, ident, options, fds)
    device = _create(kind, ident, options, loop, fds, resumed=resumed, inert=inert)
    tell = announce or _nobody
    if isinstance(device, SocketChardev) and _on(options, "wait") and not device.adopted:
        tell(f"waiting for connection on: {device.filename}")
        device.wait_for_client()
    elif isinstance(device, PtyChardev) and not device.adopted:
        tell(f"char device redirected to {device.path} (label {ident})")
    return MuxChardev(device, loop) if _on(options, "mux") else device


def _check_descriptor(kind: str, ident: str, options: Options, fds: FdTable) -> None:
    """Refuse what would be opened, made or listened on: the program before must have left it."""
    needed = kind in _OPENED or (kind == "socket" and _on(options, "server"))
    if needed and not any(entry.name == f"{FD_OWNER}/{ident}" for entry in fds.walk(FD_OWNER)):
        raise ConfigError(
            f"chardev {ident}: the program before has no descriptor of it, so it would be made anew"
        )


def front_end(device: Chardev, role: str) -> Chardev:
    """Return what a front end attaches to: the device itself, or a share of it if it is a mux.

    Args:
        device: What :func:`create` returned.
        role: ``serial`` or ``monitor``; a monitor's output waits while it is not in focus.
    """
    return device.share(role) if isinstance(device, MuxChardev) else device


def _create(  # noqa: PLR0913 - what a device needs from around it
    kind: str,
    ident: str,
    options: Options,
    loop: Loop,
    fds: FdTable,
    *,
    resumed: bool,
    inert: bool,
) -> Chardev:
    path = str(options.get("path") or "")
    makers: dict[str, Callable[[], Chardev]] = {
        "file": lambda: FileChardev(
            ident, path, loop, fds, append=resumed or _on(options, "append")
        ),
        "null": lambda: NullChardev(ident, loop),
        "pipe": lambda: PipeChardev(ident, path, loop, fds),
        "pty": lambda: PtyChardev(ident, loop, fds),
        "ringbuf": lambda: RingChardev(ident, _number(options, "size") or DEFAULT_SIZE, loop),
        "socket": lambda: _socket(ident, options, loop, fds, resumed=resumed),
        "stdio": lambda: StdioChardev(
            ident, loop, fds, signal=_on(options, "signal"), inert=inert
        ),
    }
    if kind not in makers:
        raise ConfigError(f"chardev {ident}: unknown kind {kind}, allowed are {', '.join(makers)}")
    return makers[kind]()


def _socket(
    ident: str, options: Options, loop: Loop, fds: FdTable, *, resumed: bool
) -> SocketChardev:
    host, family = str(options.get("host") or ""), options.get("family")
    address = (
        InetAddress(
            ident,
            host,
            _number(options, "port"),
            "ipv4" if family == "ipv4" else "ipv6" if family == "ipv6" else "any",
        )
        if host
        else UnixAddress(ident, str(options.get("path") or ""))
    )
    if options.get("tls") is not None:
        return _tls_socket(ident, address, options, loop, fds, resumed=resumed)
    return SocketChardev(
        ident,
        address,
        loop,
        fds,
        server=_on(options, "server"),
        nodelay=_on(options, "nodelay"),
        reconnect_ms=_number(options, "reconnect_ms"),
        resumed=resumed,
    )


def _tls_socket(
    ident: str,
    address: Address,
    options: Options,
    loop: Loop,
    fds: FdTable,
    *,
    resumed: bool,
) -> SocketChardev:
    """Return a socket with TLS; its modules are loaded here, since few machines have one."""
    from instar.chardev.tls import TlsCredentials  # noqa: PLC0415 - see above
    from instar.chardev.tls_socket import TlsSocketChardev  # noqa: PLC0415 - see above

    credentials = options["tls"]
    assert isinstance(credentials, TlsCredentials)
    server = _on(options, "server")
    if credentials.server != server:
        side = "server" if server else "client"
        raise ConfigError(
            f"chardev {ident}: Expected TLS credentials for a {side} endpoint, {credentials.id} are not"
        )
    return TlsSocketChardev(
        ident,
        address,
        loop,
        fds,
        credentials=credentials,
        reopen=_on(options, "reopen_on_cpr"),
        server=server,
        nodelay=_on(options, "nodelay"),
        reconnect_ms=_number(options, "reconnect_ms"),
        resumed=resumed,
    )


def _on(options: Options, name: str) -> bool:
    return bool(options.get(name, False))


def _number(options: Options, name: str) -> int:
    value = options.get(name, 0)
    return value if isinstance(value, int) else 0


def _nobody(_text: str) -> None:
    """Hear announcements that nobody asked for."""
