"""``tap``: a network interface of the host.

Source: Linux Documentation/networking/tuntap.rst and include/uapi/linux/if_tun.h (numbers).
"""

from __future__ import annotations

import errno
import os
from fcntl import ioctl
from struct import Struct

from instar.errors import ConfigError, HostError
from instar.netdev import sockets
from instar.netdev.base import MAX_FRAME, NetBackend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from instar.loop import Loop
    from instar.netdev.base import Emit, FdTable
    from instar.netdev.spec import NetSpec

_TUNSETIFF, _TUNGETIFF = 0x4004_54CA, 0x8004_54D2
_TUNSETOFFLOAD, _TUNSETVNETHDRSZ, _TUNSETVNETLE = 0x4004_54D0, 0x4004_54D8, 0x4004_54DC
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_IFREQ: Final = Struct("16sH22x")
_INT: Final = Struct("=i")
HEADER: Final = 12  # bytes of struct virtio_net_hdr_v1


class TapNet(NetBackend):
    """A tap interface: made, joined by name, or handed over as a descriptor."""

    __slots__ = ("_full", "_ifname", "_offload")
    kind: ClassVar[str] = "tap"

    def __init__(self, spec: NetSpec, loop: Loop, emit: Emit) -> None:
        super().__init__(spec, loop, emit)
        self._full = False
        self._ifname = ""
        self._offload = -1  # unknown: what the program before set

    @property
    def info(self) -> str:
        """What ``info network`` shows of its other end."""
        return f"ifname={self._ifname}"

    def open(self, fds: FdTable) -> None:
        """Take over the descriptor, or make one; the kernel is asked for the interface only once.

        Raises:
            ConfigError, HostError: it cannot be; nothing was created.
        """
        spec = self.spec
        fd = fds.take(self.name, 0)
        if fd < 0 and spec.text("fd"):
            fd = sockets.given_fd(spec, spec.text("fd"), fds)
        elif fd < 0:
            fd = self._create()
        try:
            self._prepare(fd)
        except OSError as e:
            raise HostError(
                f"netdev {spec.id}: the descriptor is no usable tap: {sockets.reason(e)}"
            ) from e
        self._fd = fd
        self._rewatch()

    def set_offload(self, flags: int) -> None:
        """Tell the kernel what the guest takes unfinished."""
        if self.spec.vnet_hdr and flags != self._offload and self._fd >= 0:
            try:
                ioctl(self._fd, _TUNSETOFFLOAD, flags)
            except OSError as e:
                raise HostError(
                    f"netdev {self.id}: the kernel refused offloads {flags:#x}: {sockets.reason(e)}"
                ) from e
            self._offload = flags

    def send(self, header: bytes, frame: bytes) -> bool:
        """Give a frame to the host's network."""
        try:
            os.writev(self._fd, (header, frame) if self.spec.vnet_hdr else (frame,))
        except BlockingIOError:
            self._full = True
            self._rewatch()
            return False
        except OSError:  # the interface is down, or the guest wrote nonsense into the header
            self.dropped += 1
        return True

    def _writable(self) -> None:
        self._full = False
        super()._writable()

    def _wait_writable(self) -> bool:
        return self._full

    def _receive(self, limit: int) -> None:
        for _ in range(limit):
            try:
                self._waiting.append(os.read(self._fd, MAX_FRAME))
            except BlockingIOError:
                return
            except OSError as e:
                if e.errno == errno.EBADFD:  # the interface was deleted: nothing comes any more
                    self._hang_up()
                return

    def _create(self) -> int:
        spec = self.spec
        flags = _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if spec.vnet_hdr else 0)
        name = spec.text("ifname")
        fd = -1
        try:
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
        except OSError as e:
            if fd >= 0:
                os.close(fd)
            raise HostError(
                f"netdev {spec.id}: could not configure /dev/net/tun ({name or 'tap%d'}): {sockets.reason(e)}"
            ) from e
        return fd

    def _prepare(self, fd: int) -> None:
        """Learn the name and agree on the header.

        Raises:
            OSError: it is no tap.
            ConfigError: it has a header where none is wanted, or the other way round.
        """
        reply = ioctl(fd, _TUNGETIFF, bytes(_IFREQ.size))
        name, flags = _IFREQ.unpack(reply)
        self._ifname = name.rstrip(b"\0").decode(errors="replace")
        has = bool(flags & _IFF_VNET_HDR)
        if has != self.spec.vnet_hdr:
            wanted = "on" if has else "off"
            raise ConfigError(
                f"netdev {self.id}: interface {self._ifname} was made with vnet_hdr={wanted}; say so"
            )
        if has:
            ioctl(fd, _TUNSETVNETHDRSZ, _INT.pack(HEADER))
            ioctl(fd, _TUNSETVNETLE, _INT.pack(1))
        os.set_blocking(fd, False)
