"""Sockets from the options of a back end, as plain descriptors.

A socket object that is forgotten closes its descriptor; when a new program fails half way, the program before it needs
all of them again. So only numbers are kept.
"""

from __future__ import annotations

import _socket
import errno
import os
from stat import S_ISSOCK

from instar.errors import ConfigError, HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from instar.netdev.base import FdTable
    from instar.netdev.spec import NetSpec

    Address = str | tuple[str, int]

_FIRST: Final = 3  # 0 to 2 are the standard streams
KINDS: Final = {"stream": _socket.SOCK_STREAM, "dgram": _socket.SOCK_DGRAM}


def reason(error: OSError) -> str:
    """Return the host's words."""
    return os.strerror(error.errno) if error.errno else str(error)


def given_fd(spec: NetSpec, text: str, fds: FdTable) -> int:
    """Return the descriptor that the user means by a number or by a name of ``getfd``; it is ours from now on.

    Raises:
        ConfigError: there is none, or the number is one of our own; nothing changed.
    """
    if not text.isdigit():
        fd = fds.take(f"getfd/{text}", 0)
        if fd < 0:
            raise ConfigError(f"netdev {spec.id}: there is no descriptor named {text!r} (getfd)")
        return fd
    fd = int(text)
    try:  # ours are all close-on-exec
        handed = fd >= _FIRST and os.get_inheritable(fd)
    except OSError:
        handed = False
    if not handed:
        raise ConfigError(f"netdev {spec.id}: descriptor {fd} was not handed to this program")
    os.set_inheritable(fd, False)  # noqa: FBT003 - positional only
    return fd


def given_socket(spec: NetSpec, text: str, fds: FdTable) -> int:
    """Return :func:`given_fd` if it is a socket of the right kind.

    Raises:
        ConfigError: it is not; the descriptor stays open.
    """
    fd = given_fd(spec, text, fds)
    if not S_ISSOCK(os.fstat(fd).st_mode):
        raise ConfigError(f"netdev {spec.id}: descriptor {text} is no socket")
    sock = _socket.socket(fileno=fd)
    kind = sock.type
    sock.detach()
    if kind != KINDS[spec.kind]:
        raise ConfigError(f"netdev {spec.id}: descriptor {text} is no {spec.kind} socket")
    os.set_blocking(fd, False)
    return fd


def address(spec: NetSpec, prefix: str) -> tuple[int, Address]:
    """Return family and address of the options ``<prefix>.type`` and so on.

    Raises:
        HostError: a host name is not known.
    """
    if spec.text(f"{prefix}.type") == "unix":
        return _socket.AF_UNIX, spec.text(f"{prefix}.path")
    host, port = spec.text(f"{prefix}.host"), int(spec.text(f"{prefix}.port"))
    try:
        found = _socket.getaddrinfo(host, port, 0, KINDS[spec.kind])
    except OSError as e:
        raise HostError(f"netdev {spec.id}: host {host} is not known: {e}") from e
    family, _, _, _, where = found[0]
    return family, (str(where[0]), int(where[1]))


def connect(spec: NetSpec) -> int:
    """Return a connected stream socket, non-blocking.

    Raises:
        HostError: nobody listens there.
    """
    family, where = address(spec, "addr")
    return _make(spec, family, "connect to", where, lambda sock: sock.connect(where))


def bind(spec: NetSpec, prefix: str) -> int:
    """Return a bound socket, listening if it is a stream's; a stale socket file is replaced.

    Raises:
        HostError: the address is in use, or the host refused; nothing was created.
    """
    family, where = address(spec, prefix)

    def do(sock: _socket.socket) -> None:
        if isinstance(where, str):
            _remove_stale(where, KINDS[spec.kind])
            os.fchmod(sock.fileno(), 0o600)
        else:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        sock.bind(where)
        if spec.kind == "stream":
            sock.listen(1)

    return _make(spec, family, "listen on", where, do)


def accept(listener: int) -> int:
    """Return the descriptor of the next connection, non-blocking.

    Raises:
        OSError: there is none, or no descriptor for it.
    """
    sock = _socket.socket(fileno=listener)
    try:
        take: Callable[[], tuple[int, object]] = getattr(sock, "_accept")  # noqa: B009 - not in the stubs
        fd = take()[0]
    finally:
        sock.detach()
    os.set_blocking(fd, False)
    return fd


def inode(path: str) -> tuple[int, int]:
    """Return device and inode of a file, zeros if it is not there."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def remove_ours(path: str, ours: tuple[int, int]) -> None:
    """Remove the socket file if it is still the one that was made here."""
    if ours != (0, 0) and inode(path) == ours:
        os.unlink(path)


def shown(where: Address) -> str:
    """Return an address for people."""
    return f"unix:{where}" if isinstance(where, str) else f"tcp:{where[0]}:{where[1]}"


def _make(
    spec: NetSpec, family: int, verb: str, where: Address, do: Callable[[_socket.socket], object]
) -> int:
    sock = _socket.socket(family, KINDS[spec.kind])
    try:
        do(sock)
    except OSError as e:
        sock.close()
        raise HostError(f"netdev {spec.id}: cannot {verb} {shown(where)}: {reason(e)}") from e
    sock.settimeout(0)
    return sock.detach()


def _remove_stale(path: str, kind: int) -> None:
    """Remove a socket file that nobody uses any more; leave everything else alone."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "exists and is not a socket")
    probe = _socket.socket(_socket.AF_UNIX, kind)
    try:
        probe.settimeout(0)
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
        return
    except BlockingIOError:  # its backlog is full: somebody listens
        pass
    finally:
        probe.close()
    raise OSError(errno.EADDRINUSE, "in use")
