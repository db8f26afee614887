"""``tap``: a network interface of the host.

Source: Linux Documentation/networking/tuntap.rst and include/uapi/linux/if_tun.h (numbers).
"""

from __future__ import annotations

import errno
import os
from fcntl import ioctl
from struct import Struct

from instar import log
from instar.errors import ConfigError, HostError
from instar.netdev import sockets
from instar.netdev.base import HEADER, LENGTH, MAX_FRAME, NetBackend
from instar.netdev.state import QueueState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import ClassVar, Final

    from instar.loop import Loop
    from instar.netdev.base import Emit, FdTable
    from instar.netdev.spec import NetSpec
    from instar.netdev.state import NetdevState

_TUNSETIFF, _TUNGETIFF = 0x4004_54CA, 0x8004_54D2
_TUNSETOFFLOAD, _TUNSETVNETHDRSZ, _TUNSETVNETLE = 0x4004_54D0, 0x4004_54D8, 0x4004_54DC
_TUNSETQUEUE: Final = 0x4004_54D9
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_IFF_MULTI_QUEUE, _IFF_ATTACH_QUEUE, _IFF_DETACH_QUEUE = 0x0100, 0x0200, 0x0400
_IFREQ: Final = Struct("16sH22x")
_INT: Final = Struct("=i")


class TapQueue(NetBackend):
    """One queue of an interface: a descriptor."""

    __slots__ = ("_attached", "_full", "_ifname", "_shared")
    kind: ClassVar[str] = "tap"

    def __init__(self, spec: NetSpec, loop: Loop, emit: Emit) -> None:
        super().__init__(spec, loop, emit)
        self._full = False
        self._ifname = ""
        self._shared = False  # the interface may have several queues
        self._attached = True

    @property
    def ifname(self) -> str:
        """The interface; empty before the descriptor is there."""
        return self._ifname

    @property
    def has_card(self) -> bool:
        """Whether a pair of queues of a card is in front of it."""
        return self._front is not None

    def adopt(self, fd: int) -> None:
        """Go on with an open descriptor.

        Raises:
            ConfigError, HostError: it is no tap, or of another kind than the user said; it is not ours then.
        """
        try:
            self._prepare(fd)
        except OSError as e:
            if not (self.resumed and e.errno == errno.EBADFD):  # else reading will tell
                raise HostError(
                    f"netdev {self.id}: the descriptor is no usable tap: {sockets.reason(e)}"
                ) from e
        self._fd = fd
        self._rewatch()

    def use(self, *, active: bool) -> None:
        """Have the kernel spread frames over the queues that the guest uses."""
        if not self._shared or active == self._attached or self._fd < 0:
            return
        wanted = _IFF_ATTACH_QUEUE if active else _IFF_DETACH_QUEUE
        try:
            ioctl(self._fd, _TUNSETQUEUE, _IFREQ.pack(b"", wanted))
        except OSError as e:
            if e.errno == errno.EBADFD:
                self._interface_gone()
                return
            verb = "attach" if active else "detach"
            raise HostError(
                f"netdev {self.id}: the kernel did not {verb} a queue: {sockets.reason(e)}"
            ) from e
        self._attached = active

    def send(self, header: bytes, frame: bytes) -> bool:
        """Give a frame to the host's network."""
        return self.send_parts([memoryview(header), memoryview(frame)])

    def send_parts(self, parts: Sequence[memoryview]) -> bool:
        """Give a frame to the host's network, out of guest memory."""
        try:
            os.writev(self._fd, parts if self.spec.vnet_hdr else without_header(parts))
        except BlockingIOError:
            self._full = True
            self._rewatch()
            return False
        except OSError:  # the interface is down, or the guest wrote nonsense into the header
            self.dropped += 1
        return True

    def name_fd(self, fds: FdTable, index: int) -> None:
        """Name the descriptor that must cross."""
        self._name(fds, index, self._fd)

    def framed(self) -> bytes:
        """Return the frames that the guest has not taken, each after its length."""
        return b"".join(LENGTH.pack(len(frame)) + frame for frame in self._waiting)

    def unframe(self, data: bytes) -> None:
        """Take over what :meth:`framed` returned."""
        self._input += data
        self._split()
        self._rewatch()

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
                if e.errno == errno.EBADFD:
                    self._interface_gone()
                return

    def _interface_gone(self) -> None:
        """Go on as without a cable: the host has deleted the interface, and nothing comes any more."""
        log.limited(
            "warning",
            self.name,
            f"interface {self._ifname or self.spec.text('ifname') or 'of the tap'} was deleted: no cable any more",
        )
        self._hang_up()

    def _prepare(self, fd: int) -> None:
        """Learn the name and agree on the header.

        Raises:
            OSError: it is no tap.
            ConfigError: it has a header where none is wanted, or the other way round; or it has no queues.
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
        self._shared = bool(flags & _IFF_MULTI_QUEUE)
        self._attached = not flags & _IFF_DETACH_QUEUE
        if self.spec.queues > 1 and not self._shared:
            raise ConfigError(
                f"netdev {self.id}: interface {self._ifname} has one queue; make it with multi_queue"
            )
        if self.inert:  # the program before has told the kernel
            return
        if has:
            ioctl(fd, _TUNSETVNETHDRSZ, _INT.pack(HEADER))
            ioctl(fd, _TUNSETVNETLE, _INT.pack(1))
        os.set_blocking(fd, False)


class TapNet(TapQueue):
    """A tap interface: made, joined by name, or handed over as descriptors, one for each queue."""

    __slots__ = ("_more", "_offload")

    def __init__(self, spec: NetSpec, loop: Loop, emit: Emit) -> None:
        super().__init__(spec, loop, emit)
        self._more = [TapQueue(spec, loop, emit) for _ in range(spec.queues - 1)]
        self._offload = -1  # unknown: what the program before set

    @property
    def info(self) -> str:
        """What ``info network`` shows of its other end."""
        count = 1 + len(self._more)
        ifname = self._ifname or self.spec.text("ifname")
        queues = f",queues={count}" if count > 1 else ""
        return f"ifname={ifname}{queues}" + (",deleted" if self._fd < 0 else "")

    def queue(self, index: int) -> TapQueue | None:
        """Return one of its queues; None if it has fewer."""
        queues = [self, *self._more]
        return queues[index] if index < len(queues) else None

    def open(self, fds: FdTable) -> None:
        """Take over the descriptors, or make them; the kernel is asked for the interface only once.

        An interface that was deleted under the program before is not made again: it is the host's to say so.

        Raises:
            ConfigError, HostError: it cannot be; nothing was created.
        """
        made: list[int] = []
        try:
            for index, queue in enumerate([self, *self._more]):
                queue.inert = self.inert
                queue.resumed = self.resumed
                fd = self._descriptor(fds, index, made)
                if fd < 0:
                    continue
                queue.adopt(fd)
                if queue.ifname != self._ifname:
                    raise ConfigError(
                        f"netdev {self.id}: its descriptors are of {self._ifname} and {queue.ifname}"
                    )
        except BaseException:
            for fd in made:
                os.close(fd)
            raise

    def use(self, *, active: bool) -> None:
        """Keep the first queue; those that no card has go with it."""
        super().use(active=True)
        for queue in self._more:
            if not queue.has_card:
                queue.use(active=False)

    def set_offload(self, flags: int) -> None:
        """Tell the kernel what the guest takes unfinished."""
        if self.spec.vnet_hdr and flags != self._offload and self._fd >= 0:
            try:
                ioctl(self._fd, _TUNSETOFFLOAD, flags)
            except OSError as e:
                if e.errno == errno.EBADFD:
                    self._interface_gone()
                    return
                raise HostError(
                    f"netdev {self.id}: the kernel refused offloads {flags:#x}: {sockets.reason(e)}"
                ) from e
            self._offload = flags

    def save_fds(self, fds: FdTable) -> None:
        """Name the descriptor of each queue."""
        for index, queue in enumerate([self, *self._more]):
            queue.name_fd(fds, index)

    def save_state(self) -> NetdevState:
        """Return what waits in each queue."""
        state = super().save_state()
        state.more = [QueueState(received=queue.framed()) for queue in self._more]
        return state

    def load_state(self, state: NetdevState) -> None:
        """Go on with what waited."""
        super().load_state(state)
        for queue, old in zip(self._more, state.more, strict=False):
            queue.unframe(old.received)

    def close(self) -> None:
        """Close all queues."""
        for queue in self._more:
            queue.close()
        super().close()

    def _descriptor(self, fds: FdTable, index: int, made: list[int]) -> int:
        """Return the descriptor of a queue, -1 if the program before had none; a new one is added to ``made``."""
        spec = self.spec
        fd = fds.take(self.name, index)
        if self.resumed:
            return fd
        given = [text for text in (spec.text("fds") or spec.text("fd")).split(":") if text]
        if fd < 0:
            self._make_nothing()
        if fd < 0 and given:
            if given[index] in given[:index]:
                raise ConfigError(f"netdev {spec.id}: descriptor {given[index]} is given twice")
            return sockets.given_fd(spec, given[index], fds)
        if fd < 0:
            fd = self._create(self._ifname or spec.text("ifname"))
            made.append(fd)
        return fd

    def _create(self, name: str) -> int:
        spec = self.spec
        flags = _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if spec.vnet_hdr else 0)
        flags |= _IFF_MULTI_QUEUE if spec.queues > 1 else 0
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


def without_header(parts: Sequence[memoryview]) -> list[memoryview]:
    """Return the frame alone; the header may be cut anywhere."""
    rest: list[memoryview] = []
    skip = HEADER
    for part in parts:
        rest.append(part[skip:])
        skip -= min(skip, len(part))
    return rest
