"""A request to the kernel that says what it was when it is refused."""

from __future__ import annotations

import errno
import fcntl
import os

from instar.cpu.kvm import _run, uapi
from instar.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_FIRST_REQUEST: Final = 0xAE00


def name_of(request: int) -> str:
    """Return the kernel's name of a request of KVM."""
    for name, value in vars(uapi).items():
        if type(value) is int and value >= _FIRST_REQUEST and value == request:
            return f"KVM_{name.removesuffix('_REQUEST')}"
    return f"the request {request:#x}"


def refused(request: int, what: str, e: OSError) -> HostError:
    """Return the error for a request that failed; the cause is for the caller to add (``from``)."""
    code = errno.errorcode.get(e.errno or 0, "?")
    said = os.strerror(e.errno or 0).lower()
    shown = f" of {what}" if what else ""
    return HostError(f"the kernel refused {name_of(request)}{shown}: {said} ({code})")


def with_value(fd: int, request: int, value: int = 0, what: str = "") -> int:
    """Make a request that takes a number of 64 bits and return its result (HostError)."""
    try:
        return _run.call(fd, request, value)
    except OSError as e:
        raise refused(request, what or (f"{value:#x}" if value else ""), e) from e


def with_data(fd: int, request: int, data: bytes | bytearray, what: str = "") -> bytearray:
    """Make a request that takes or fills a structure and return it as it is afterwards (HostError)."""
    buffer = bytearray(data)
    try:
        fcntl.ioctl(fd, request, buffer)
    except OSError as e:
        raise refused(request, what, e) from e
    return buffer


def filled(fd: int, request: int, size: int, what: str = "") -> bytes:
    """Return a structure of ``size`` bytes that the kernel fills (HostError)."""
    return bytes(with_data(fd, request, bytes(size), what))
