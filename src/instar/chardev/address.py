"""Where a stream socket listens or connects: a path, or a host and a TCP port."""

from __future__ import annotations

import _socket
import errno
import os

from instar.errors import ConfigError
from instar.sockfile import identity, remove_ours, remove_stale

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final, Literal

    Family = Literal["any", "ipv4", "ipv6"]
    Target = tuple[int, str | tuple[str, int]]

MAX_PATH: Final = 107  # bytes, sun_path without its NUL
LOCALHOST: Final = "localhost"
_BACKLOG: Final = 8
_FAMILIES: Final = {"any": _socket.AF_UNSPEC, "ipv4": _socket.AF_INET, "ipv6": _socket.AF_INET6}


class UnixAddress:
    """A socket file.

    Args:
        ident: Of the device, for messages.
        path: At most 107 bytes.

    Raises:
        ConfigError: The path cannot be a socket's.
    """

    __slots__ = ("ident", "inode", "path")

    def __init__(self, ident: str, path: str) -> None:
        if not 0 < len(os.fsencode(path)) <= MAX_PATH:
            raise ConfigError(
                f"chardev {ident}: path has {len(os.fsencode(path))} bytes, allowed 1 to {MAX_PATH}"
            )
        self.ident = ident
        self.path = path
        self.inode: tuple[int, int] = (0, 0)  # st_dev and st_ino of the file we made

    def __str__(self) -> str:
        return self.path

    @property
    def label(self) -> str:
        """What ``query-chardev`` shows."""
        return f"unix:{self.path}"

    def targets(self) -> list[Target]:
        """Return where to connect, best first."""
        return [(_socket.AF_UNIX, self.path)]

    def listen(self) -> _socket.socket:
        """Return a listener, having removed a stale socket file.

        Raises:
            OSError: The path is in use or the host refused; nothing was created.
        """
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            remove_stale(self.path)
            os.fchmod(sock.fileno(), 0o600)  # Linux gives the file the mode of the unbound socket
            sock.bind(self.path)
            self.inode = identity(self.path)
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
        return sock

    def adopt_listener(self, sock: _socket.socket) -> None:
        """Check that the listener of the program before is this one.

        Raises:
            ConfigError: It listens elsewhere.
        """
        bound = sock.getsockname()
        if os.path.abspath(str(bound)) != os.path.abspath(self.path):
            raise ConfigError(
                f"chardev {self.ident}: path {self.path} differs from {bound}, where it listens already"
            )

    def remember(self, sock: _socket.socket) -> None:
        """Learn from a connection; a path has nothing to learn."""

    def remove(self) -> None:
        """Remove the socket file if it is still the one we made."""
        remove_ours(self.path, self.inode)


class InetAddress:
    """A host and a TCP port.

    Args:
        ident: Of the device, for messages.
        host: Name or number; empty: this machine only.
        port: 0 to 65535; 0: a listener takes any that is free.
        family: Which addresses of the host are taken.
    """

    __slots__ = ("_numbers", "family", "host", "ident", "inode", "port")

    def __init__(self, ident: str, host: str, port: int, family: Family = "any") -> None:
        self.ident = ident
        self.host = host or LOCALHOST
        self.port = port
        self.family: Family = family
        self.inode: tuple[int, int] = (0, 0)  # a port is no file
        self._numbers: list[Target] = []  # what the name stood for when it was last asked

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def label(self) -> str:
        """What ``query-chardev`` shows."""
        return f"tcp:{self}"

    def targets(self) -> list[Target]:
        """Return the host's addresses; asked for once, because a name's answer may take seconds.

        Raises:
            OSError: The name is not known.
        """
        if not self._numbers:
            found = _socket.getaddrinfo(
                os.fsencode(self.host), self.port, _FAMILIES[self.family], _socket.SOCK_STREAM
            )
            self._numbers = [
                (int(family), (str(where[0]), self.port)) for family, _, _, _, where in found
            ]
        return self._numbers

    def listen(self) -> _socket.socket:
        """Return a listener at the host's first address that can be had.

        Raises:
            OSError: No address can be had; nothing was created.
        """
        error = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        for family, where in self.targets():
            sock = _socket.socket(family, _socket.SOCK_STREAM)
            try:
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
                sock.bind(where)
                sock.listen(_BACKLOG)
            except OSError as e:
                sock.close()
                error = e
                continue
            self.port = int(sock.getsockname()[1])
            return sock
        raise error

    def adopt_listener(self, sock: _socket.socket) -> None:
        """Check that the listener of the program before is this one.

        Raises:
            ConfigError: It has another port.
        """
        where = sock.getsockname()
        bound = int(where[1]) if isinstance(where, tuple) else -1  # a path: of another kind  # pyright: ignore[reportUnknownArgumentType]
        if bound < 0 or self.port not in {0, bound}:
            raise ConfigError(
                f"chardev {self.ident}: port {self.port} differs from {bound}, where it listens already"
            )
        self.port = bound

    def remember(self, sock: _socket.socket) -> None:
        """Learn from a connection which address the name stands for."""
        where = sock.getpeername()
        self._numbers = [(sock.family, (str(where[0]), self.port))]

    def remove(self) -> None:
        """Leave nothing behind: a port has no file."""


def address_of(ident: str, options: Mapping[str, object]) -> UnixAddress | InetAddress:
    """Return where the stream socket of these options is: TCP if there is a ``host``.

    Raises:
        ConfigError: no socket can be there.
    """
    host, port, family = options.get("host"), options.get("port"), options.get("family")
    if not host:
        return UnixAddress(ident, str(options.get("path") or ""))
    number = port if isinstance(port, int) else 0
    chosen: Family = "ipv4" if family == "ipv4" else "ipv6" if family == "ipv6" else "any"
    return InetAddress(ident, str(host), number, chosen)
