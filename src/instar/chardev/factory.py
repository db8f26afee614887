"""Make a character device from its kind and options; a kind's module is imported when there is one of it."""

from __future__ import annotations

from instar.chardev.address import address_of
from instar.chardev.base import FD_OWNER
from instar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final

    from instar.chardev.base import Chardev, FdTable
    from instar.chardev.unix import SocketChardev
    from instar.loop import Loop

    Options = Mapping[str, object]

_OPENED: Final = ("file", "pipe", "pty")  # kinds that have a descriptor as long as they are


class _Wish:
    """What is to be made, and from what."""

    __slots__ = ("fds", "ident", "inert", "loop", "options", "resumed", "tell")

    def __init__(  # noqa: PLR0913 - a bundle
        self,
        ident: str,
        options: Options,
        loop: Loop,
        fds: FdTable,
        tell: Callable[[str], object],
        *,
        resumed: bool,
        inert: bool,
    ) -> None:
        self.ident = ident
        self.options = options
        self.loop = loop
        self.fds = fds
        self.tell = tell
        self.resumed = resumed
        self.inert = inert

    def on(self, name: str) -> bool:
        """Return a flag."""
        return bool(self.options.get(name, False))

    def number(self, name: str) -> int:
        """Return a number, 0 if it was not given."""
        value = self.options.get(name, 0)
        return value if isinstance(value, int) else 0

    def text(self, name: str) -> str:
        """Return a text, "" if it was not given."""
        return str(self.options.get(name) or "")


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
    wish = _Wish(ident, options, loop, fds, announce or _nobody, resumed=resumed, inert=inert)
    if inert:
        _check_descriptor(kind, wish)
    if kind not in _MAKERS:
        raise ConfigError(
            f"chardev {ident}: unknown kind {kind}, allowed are {', '.join(_MAKERS)}"
        )
    device = _MAKERS[kind](wish)
    if not wish.on("mux"):
        return device
    from instar.chardev.mux import MuxChardev  # noqa: PLC0415 - only machines with one

    return MuxChardev(device, loop)


def front_end(device: Chardev, role: str) -> Chardev:
    """Return what a front end attaches to: the device itself, or a share of it if it is a mux.

    Args:
        device: What :func:`create` returned.
        role: ``serial`` or ``monitor``; a monitor's output waits while it is not in focus.
    """
    return device.share(role)


def _check_descriptor(kind: str, wish: _Wish) -> None:
    """Refuse what would be opened, made or listened on: the program before must have left it."""
    needed = kind in _OPENED or (kind == "socket" and wish.on("server"))
    name = f"{FD_OWNER}/{wish.ident}"
    if needed and not any(entry.name == name for entry in wish.fds.walk(FD_OWNER)):
        raise ConfigError(
            f"chardev {wish.ident}: the program before has no descriptor of it, so it would be made anew"
        )


def _make_file(wish: _Wish) -> Chardev:
    from instar.chardev.file import FileChardev  # noqa: PLC0415 - only machines with one

    append = wish.resumed or wish.on("append")
    return FileChardev(wish.ident, wish.text("path"), wish.loop, wish.fds, append=append)


def _make_null(wish: _Wish) -> Chardev:
    from instar.chardev.null import NullChardev  # noqa: PLC0415 - only machines with one

    return NullChardev(wish.ident, wish.loop)


def _make_pipe(wish: _Wish) -> Chardev:
    from instar.chardev.pipe import PipeChardev  # noqa: PLC0415 - only machines with one

    return PipeChardev(wish.ident, wish.text("path"), wish.loop, wish.fds)


def _make_pty(wish: _Wish) -> Chardev:
    from instar.chardev.pty import PtyChardev  # noqa: PLC0415 - only machines with one

    device = PtyChardev(wish.ident, wish.loop, wish.fds)
    if not device.adopted:
        wish.tell(f"char device redirected to {device.path} (label {wish.ident})")
    return device


def _make_ring(wish: _Wish) -> Chardev:
    from instar.chardev.ringbuf import DEFAULT_SIZE, RingChardev  # noqa: PLC0415 - only machines with one

    return RingChardev(wish.ident, wish.number("size") or DEFAULT_SIZE, wish.loop)


def _make_stdio(wish: _Wish) -> Chardev:
    from instar.chardev.stdio import StdioChardev  # noqa: PLC0415 - only machines with one

    signal = wish.on("signal")
    return StdioChardev(wish.ident, wish.loop, wish.fds, signal=signal, inert=wish.inert)


def _make_socket(wish: _Wish) -> Chardev:
    device = _plain_socket(wish) if wish.options.get("tls") is None else _tls_socket(wish)
    if wish.on("wait") and not device.adopted:
        wish.tell(f"waiting for connection on: {device.filename}")
        device.wait_for_client()
    return device


def _plain_socket(wish: _Wish) -> SocketChardev:
    from instar.chardev.unix import SocketChardev  # noqa: PLC0415 - only machines with one

    return SocketChardev(
        wish.ident,
        address_of(wish.ident, wish.options),
        wish.loop,
        wish.fds,
        server=wish.on("server"),
        nodelay=wish.on("nodelay"),
        reconnect_ms=wish.number("reconnect_ms"),
        resumed=wish.resumed,
    )


def _tls_socket(wish: _Wish) -> SocketChardev:
    from instar.chardev.tls import TlsCredentials  # noqa: PLC0415 - only machines with one
    from instar.chardev.tls_socket import TlsSocketChardev  # noqa: PLC0415 - as above

    credentials = wish.options["tls"]
    assert isinstance(credentials, TlsCredentials)
    server = wish.on("server")
    if credentials.server != server:
        side = "server" if server else "client"
        raise ConfigError(
            f"chardev {wish.ident}: Expected TLS credentials for a {side} endpoint, {credentials.id} are not"
        )
    return TlsSocketChardev(
        wish.ident,
        address_of(wish.ident, wish.options),
        wish.loop,
        wish.fds,
        credentials=credentials,
        reopen=wish.on("reopen_on_cpr"),
        server=server,
        nodelay=wish.on("nodelay"),
        reconnect_ms=wish.number("reconnect_ms"),
        resumed=wish.resumed,
    )


def _nobody(_text: str) -> None:
    """Hear announcements that nobody asked for."""


_MAKERS: Final[dict[str, Callable[[_Wish], Chardev]]] = {
    "file": _make_file,
    "null": _make_null,
    "pipe": _make_pipe,
    "pty": _make_pty,
    "ringbuf": _make_ring,
    "socket": _make_socket,
    "stdio": _make_stdio,
}
