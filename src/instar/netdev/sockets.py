"""Sockets from the options of a back end, as plain descriptors.

A socket object that is forgotten closes its descriptor; when a new program fails half way, the program before it needs
all of them again. So only numbers are kept.
"""

from __future__ import annotations

import _socket
import errno
import os
from stat import S_ISSOCK
from time import monotonic_ns, sleep

from instar.errors import ConfigError, HostError
from instar.sockfile import remove_stale

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from instar.netdev.base import FdTable
    from instar.netdev.spec import NetSpec

    Address = str | tuple[str, int]
    Target = tuple[int, Address]

_POLL_S: Final = 0.02
_FIRST: Final = 3  # 0 to 2 are the standard streams
KINDS: Final = {"stream": _socket.SOCK_STREAM, "dgram": _socket.SOCK_DGRAM}


def reason(error: OSError) -> str:
    """Return the host's words."""
    return os.strerror(error.errno) if error.errno else str(error)


def given_fd(spec: NetSpec, text: str, fds: FdTable) -> int:
    """Return the descriptor that the user means by a number or by a name of ``getfd``.

    One with a name stays under it until :func:`claim_given`: if the back end cannot be made, the user has it still.

    Raises:
        ConfigError: there is none, or the number is one of our own; nothing changed.
    """
    if not text.isdigit():
        fd = fds.find(f"getfd/{text}", 0)
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


def addresses(spec: NetSpec, prefix: str) -> list[Target]:
    """Return families and addresses of the options ``<prefix>.type`` and so on, best first.

    Raises:
        HostError: a host name is not known.
    """
    if spec.text(f"{prefix}.type") == "unix":
        return [(_socket.AF_UNIX, spec.text(f"{prefix}.path"))]
    host, port = spec.text(f"{prefix}.host"), int(spec.text(f"{prefix}.port"))
    try:
        found = _socket.getaddrinfo(host, port, 0, KINDS[spec.kind])
    except OSError as e:
        raise HostError(f"netdev {spec.id}: host {host} is not known: {e}") from e
    return [(family, (str(where[0]), int(where[1]))) for family, _, _, _, where in found]


def connect(spec: NetSpec, patience_s: float) -> int:
    """Return a connected stream socket, non-blocking; before the guest starts only, because it waits.

    Args:
        spec: Says where.
        patience_s: How long to wait for somebody to listen.

    Raises:
        HostError: nobody listens there.
    """
    deadline = monotonic_ns() + int(patience_s * 1e9)
    while True:
        try:
            return _connect_once(spec)
        except HostError as e:
            early = isinstance(e.__cause__, FileNotFoundError | ConnectionRefusedError)
            if not early or monotonic_ns() >= deadline:
                raise
        sleep(_POLL_S)


def begin_to_connect(spec: NetSpec, turn: int) -> tuple[int, int]:
    """Begin to connect without waiting; the addresses of a host take turns.

    Returns:
        The descriptor, and EINPROGRESS (writable means that :func:`outcome` is known) or the outcome.

    Raises:
        HostError: the host name is not known now.
        OSError: no descriptor is left.
    """
    targets = addresses(spec, "addr")
    family, where = targets[turn % len(targets)]
    sock = _socket.socket(family, _socket.SOCK_STREAM)
    sock.settimeout(0)
    error = sock.connect_ex(where)
    fd = sock.detach()
    return fd, error or outcome(fd)


def outcome(fd: int) -> int:
    """Return how connecting ended: 0 or an errno."""
    sock = _socket.socket(fileno=fd)
    try:
        error = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        # A port that nobody listens on can be the one the kernel has just given us: TCP connects it to itself.
        own = not error and sock.family != _socket.AF_UNIX
        return errno.ECONNREFUSED if own and sock.getsockname() == sock.getpeername() else error
    except OSError as e:  # it was connected, and is not any more
        return e.errno or errno.ENOTCONN
    finally:
        sock.detach()


def hurry(fd: int) -> None:
    """Send each frame at once, instead of waiting for more of them (TCP)."""
    sock = _socket.socket(fileno=fd)
    try:
        if sock.family in (_socket.AF_INET, _socket.AF_INET6):
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    finally:
        sock.detach()


def peer(spec: NetSpec, fd: int) -> dict[str, object]:
    """Return the other end of a stream as QMP shows it (``SocketAddress``): the real one of TCP, else the options."""
    said: dict[str, object] = {
        key.removeprefix("addr."): value
        for key, value in spec.options.items()
        if key.startswith("addr.")
    }
    sock = _socket.socket(fileno=fd)
    try:
        if sock.family in (_socket.AF_INET, _socket.AF_INET6):
            host, port, *_ = sock.getpeername()
            version = "ipv4" if sock.family == _socket.AF_INET else "ipv6"
            return {"type": "inet", "host": host, "port": str(port), version: True}
    except OSError:  # it has hung up already
        pass
    finally:
        sock.detach()
    return said


def bind(spec: NetSpec, prefix: str) -> int:
    """Return a bound socket, listening if it is a stream's; a stale socket file is replaced.

    Raises:
        HostError: the address is in use, or the host refused; nothing was created.
    """
    family, where = addresses(spec, prefix)[0]

    def do(sock: _socket.socket) -> None:
        if isinstance(where, str):
            remove_stale(where, KINDS[spec.kind])
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


def shown(where: Address) -> str:
    """Return an address for people."""
    return f"unix:{where}" if isinstance(where, str) else f"tcp:{where[0]}:{where[1]}"


def _connect_once(spec: NetSpec) -> int:
    """Return a connected socket: to the first address that answers."""
    *others, last = addresses(spec, "addr")
    for target in others:
        try:
            return _connect_to(spec, target)
        except HostError:
            continue
    return _connect_to(spec, last)


def _connect_to(spec: NetSpec, target: Target) -> int:
    family, where = target
    return _make(spec, family, "connect to", where, lambda sock: sock.connect(where))


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
