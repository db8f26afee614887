"""virtio-net: a network card over lines to a back end, one for each pair of queues.

Source: virtio 1.2, 5.1 (device 1).
"""

from __future__ import annotations

from struct import Struct

from instar.cpr.errors import StateInvalidError
from instar.devices.virtio_net import filter as rx_filter
from instar.devices.virtio_net.pair import Pair
from instar.devices.virtio_net.state import NetState
from instar.errors import QueueError
from instar.virtio.device import VirtioDevice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import ClassVar, Final

    from instar.cpr.state import State
    from instar.devices.virtio_net.pair import Line
    from instar.virtio.queue import Queue

F_CSUM: Final = 1 << 0
F_GUEST_CSUM: Final = 1 << 1
F_CTRL_GUEST_OFFLOADS: Final = 1 << 2
F_MAC: Final = 1 << 5
F_GUEST_TSO4, F_GUEST_TSO6, F_GUEST_ECN = 1 << 7, 1 << 8, 1 << 9
F_HOST_TSO4, F_HOST_TSO6, F_HOST_ECN = 1 << 11, 1 << 12, 1 << 13
F_MRG_RXBUF: Final = 1 << 15
F_STATUS: Final = 1 << 16
F_CTRL_VQ: Final = 1 << 17
F_CTRL_RX: Final = 1 << 18
F_CTRL_VLAN: Final = 1 << 19
F_CTRL_RX_EXTRA: Final = 1 << 20
F_MQ: Final = 1 << 22
F_CTRL_MAC_ADDR: Final = 1 << 23
_ALWAYS: Final = (
    F_MAC | F_STATUS | F_MRG_RXBUF | F_CTRL_VQ | F_CTRL_RX | F_CTRL_VLAN | F_CTRL_RX_EXTRA | F_CTRL_MAC_ADDR
)  # fmt: skip
_GUEST_OFFLOADS: Final = F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_ECN
_OFFLOADS: Final = (
    F_CSUM | F_CTRL_GUEST_OFFLOADS | _GUEST_OFFLOADS | F_HOST_TSO4 | F_HOST_TSO6 | F_HOST_ECN
)
# Feature to TUN_F_* (linux/if_tun.h).
_TUN_FLAGS: Final = ((F_GUEST_CSUM, 1), (F_GUEST_TSO4, 2), (F_GUEST_TSO6, 4), (F_GUEST_ECN, 8))

MAX_COMMAND: Final = 4096  # bytes on the control queue; two full tables have less than 400
_CLASS_MQ, _CLASS_OFFLOADS = 4, 5
_CONFIG: Final = Struct("<6sHH")  # mac, status, max_virtqueue_pairs
_LINK_UP: Final = 1


def _names(pairs: int) -> tuple[str, ...]:
    """Return the queues of a card in the order of their numbers (5.1.2)."""
    more = (f"{way}{n}" for n in range(1, pairs) for way in ("receive", "transmit"))
    return ("receive", "transmit", *more, "control")


class VirtioNet(VirtioDevice):
    """Carry frames between a guest and its lines; this one has a single pair of queues.

    Args:
        lines: The ways to the back end, one for each pair of queues.
        mac: Address of the card, 6 bytes.
        state_id: Unique name of its state.

    Attributes:
        pairs: Its pairs of queues; the driver begins with the first.
        dropped: Frames for the guest that were not delivered: no link, not for it, or longer than its buffers.
    """

    __slots__ = ("dropped", "mac", "pairs", "state")
    state_class: ClassVar[type[State]] = NetState
    device_id = 1
    queues: ClassVar[tuple[str, ...]] = _names(1)

    def __init__(self, lines: Sequence[Line], *, mac: bytes, state_id: str) -> None:
        super().__init__(state_id)
        self.mac = mac
        self.state = NetState(mac=mac)
        self.dropped = 0
        self.pairs = [Pair(self, index, line) for index, line in enumerate(lines)]

    # ------------------------------------------------------------------- life

    def reset(self) -> None:
        """Bring the reset state; the cable stays as it is."""
        self._adopt(NetState(mac=self.mac, link=self.state.link))

    def resume(self, queue: Queue) -> None:
        """Go on sending and receiving after a load."""
        if queue.name.startswith("receive") and not self._is_control(queue):
            self._pair(queue).on_receive(queue)
        elif queue.name.startswith("transmit"):
            self._pair(queue).on_transmit(queue)

    def save_state(self) -> NetState:
        """Return the live state."""
        return self.state

    def check_against(self, state: NetState) -> None:
        """Refuse the state of a card with more queues.

        Raises:
            StateInvalidError: the guest uses more than this card has.
        """
        if state.pairs > len(self.pairs):
            raise StateInvalidError(
                f"{self.state_id}.pairs: the guest uses {state.pairs}, the card has {len(self.pairs)}"
            )

    def load_state(self, state: NetState) -> None:
        """Go on from ``state``."""
        self._adopt(state)

    def _adopt(self, state: NetState) -> None:
        self.state = state
        for pair in self.pairs:
            pair.forget()

    # ------------------------------------------------------------------- configuration

    def offered(self) -> int:
        """Return the features; unfinished frames only if the other end takes them."""
        offloads = _OFFLOADS if self.pairs[0].line.vnet_hdr else 0
        return _ALWAYS | offloads | (F_MQ if len(self.pairs) > 1 else 0)

    def config(self) -> bytes:
        """Return the configuration space (5.1.4)."""
        status = _LINK_UP if self.state.link else 0
        return _CONFIG.pack(self.state.mac, status, len(self.pairs))

    def set_link(self, *, up: bool) -> None:
        """Plug or pull the cable (``set_link``)."""
        if self.state.link != up:
            self.state.link = up
            self.port.config_changed()
            for pair in self.pairs:
                pair.line.wake_receive()

    @property
    def mergeable(self) -> bool:
        """Whether a frame may be spread over several buffers of the guest."""
        return bool(self.port.features & F_MRG_RXBUF)

    @property
    def filters_vlans(self) -> bool:
        """Whether the driver says which VLANs it listens to."""
        return bool(self.port.features & F_CTRL_VLAN)

    def tun_offloads(self) -> int:
        """Return what the guest takes unfinished, as ``TUN_F_*``."""
        taken = self.port.features & ~self.state.offloads_off
        return sum(flag for feature, flag in _TUN_FLAGS if taken & feature)

    # ------------------------------------------------------------------- queues

    def on_receive(self, queue: Queue) -> None:
        """Take new buffers; without VIRTIO_NET_F_MQ the queue behind the first pair is for control (5.1.2)."""
        if self._is_control(queue):
            self.on_control(queue)
        else:
            self._pair(queue).on_receive(queue)

    def on_transmit(self, queue: Queue) -> None:
        """Send what is there."""
        self._pair(queue).on_transmit(queue)

    on_receive1 = on_receive2 = on_receive3 = on_receive
    on_transmit1 = on_transmit2 = on_transmit3 = on_transmit

    def _is_control(self, queue: Queue) -> bool:
        return queue.name == "receive1" and not self.port.features & F_MQ

    def _pair(self, queue: Queue) -> Pair:
        return self.pairs[self.queues.index(queue.name) // 2]

    def on_control(self, queue: Queue) -> None:
        """Do what the driver asks (5.1.6.5)."""
        for chain in queue.peek():
            if chain.room < 1:
                raise QueueError(f"command {chain.head} has no room for its answer")
            data = chain.read(0, min(chain.size, MAX_COMMAND))
            known = len(data) >= 2 and chain.size <= MAX_COMMAND
            done = known and self._command(data[0], data[1], data[2:])
            chain.write(b"\0" if done else b"\1")
            queue.complete(chain, 1)

    def _command(self, kind: int, number: int, data: bytes) -> bool:
        if kind == _CLASS_MQ:
            return number == 0 and len(data) == 2 and self._use_pairs(data)
        if kind == _CLASS_OFFLOADS:
            return number == 0 and len(data) == 8 and self._set_offloads(data)
        return rx_filter.command(self.state, kind, number, data)

    def _use_pairs(self, data: bytes) -> bool:
        """Use the first so many pairs (5.1.6.5.5)."""
        count = int.from_bytes(data, "little")
        if not self.port.features & F_MQ or not 1 <= count <= len(self.pairs):
            return False
        self.state.pairs = count
        for pair in self.pairs:
            pair.change_use()
        return True

    def _set_offloads(self, data: bytes) -> bool:
        """Take the whole set of what may come unfinished (5.1.6.5.6.1)."""
        wanted = int.from_bytes(data, "little")
        able = self.port.features & _GUEST_OFFLOADS
        if not self.port.features & F_CTRL_GUEST_OFFLOADS or wanted & ~able:
            return False
        self.state.offloads_off = able & ~wanted
        line = self.pairs[0].line
        line.set_offload(self.tun_offloads())
        line.wake_receive()
        return True


class VirtioNet2(VirtioNet):
    """A card with two pairs of queues."""

    __slots__ = ()
    queues: ClassVar[tuple[str, ...]] = _names(2)


class VirtioNet3(VirtioNet):
    """A card with three."""

    __slots__ = ()
    queues: ClassVar[tuple[str, ...]] = _names(3)


class VirtioNet4(VirtioNet):
    """A card with four."""

    __slots__ = ()
    queues: ClassVar[tuple[str, ...]] = _names(4)


_CARDS: Final = (VirtioNet, VirtioNet2, VirtioNet3, VirtioNet4)


def make_card(lines: Sequence[Line], *, mac: bytes, state_id: str) -> VirtioNet:
    """Return a card with a pair of queues for each of up to 4 lines."""
    return _CARDS[len(lines) - 1](lines, mac=mac, state_id=state_id)
