"""Which frames are for the guest, and how its driver says so.

Source: virtio 1.2, 5.1.6.5.1 and 5.1.6.5.2.
"""

from __future__ import annotations

from instar.devices.virtio_net.state import ADDRESS, MAX_ADDRESSES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.devices.virtio_net.state import NetState

CLASS_RX, CLASS_MAC = 0, 1
_TABLE_SET, _ADDRESS_SET = 0, 1
_MODES: Final = (
    "promiscuous", "all_multicast", "all_unicast", "no_multicast", "no_unicast", "no_broadcast",
)  # fmt: skip
_BROADCAST: Final = b"\xff" * ADDRESS
_COUNT: Final = 4  # bytes


def accepts(state: NetState, frame: bytes) -> bool:
    """Return whether the guest wants the frame."""
    if state.promiscuous:
        return True
    to = frame[:ADDRESS]
    if to == _BROADCAST:
        return not state.no_broadcast
    if to[:1] and to[0] & 1:
        return not state.no_multicast and (
            state.all_multicast or state.multicast_overflow or _contains(state.multicast, to)
        )
    return not state.no_unicast and (
        state.all_unicast
        or state.unicast_overflow
        or to == state.mac
        or _contains(state.unicast, to)
    )


def command(state: NetState, kind: int, number: int, data: bytes) -> bool:
    """Do what the driver asks on the control queue; return whether it was possible."""
    if kind == CLASS_RX and number < len(_MODES) and len(data) == 1:
        setattr(state, _MODES[number], bool(data[0]))
        return True
    if kind == CLASS_MAC and number == _ADDRESS_SET and len(data) == ADDRESS:
        state.mac = data
        return True
    return kind == CLASS_MAC and number == _TABLE_SET and _set_tables(state, data)


def addresses(table: bytes) -> list[bytes]:
    """Return the addresses of a table."""
    return [table[n : n + ADDRESS] for n in range(0, len(table), ADDRESS)]


def shown(address: bytes) -> str:
    """Return an address as people write it."""
    return address.hex(":")


def _contains(table: bytes, address: bytes) -> bool:
    return address in addresses(table)


def _set_tables(state: NetState, data: bytes) -> bool:
    """Take a table of unicast and one of multicast addresses, each after its count."""
    tables: list[bytes] = []
    rest = data
    for _ in range(2):
        count = int.from_bytes(rest[:_COUNT], "little")
        end = _COUNT + count * ADDRESS
        if len(rest) < max(end, _COUNT):
            return False
        tables.append(rest[_COUNT:end])
        rest = rest[end:]
    if rest:
        return False
    room = MAX_ADDRESSES * ADDRESS
    state.unicast_overflow = len(tables[0]) > room
    state.unicast = b"" if state.unicast_overflow else tables[0]
    room -= len(state.unicast)
    state.multicast_overflow = len(tables[1]) > room
    state.multicast = b"" if state.multicast_overflow else tables[1]
    return True
