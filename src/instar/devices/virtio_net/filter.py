"""Which frames are for the guest, and how its driver says so.

Source: virtio 1.2, 5.1.6.5.1 to 5.1.6.5.3.
"""

from __future__ import annotations

from instar.devices.virtio_net.state import ADDRESS, MAX_ADDRESSES, VLAN_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.devices.virtio_net.state import NetState

CLASS_RX, CLASS_MAC, CLASS_VLAN = 0, 1, 2
_TABLE_SET, _ADDRESS_SET = 0, 1
_MODES: Final = (
    "promiscuous", "all_multicast", "all_unicast", "no_multicast", "no_unicast", "no_broadcast",
)  # fmt: skip
_BROADCAST: Final = b"\xff" * ADDRESS
_COUNT: Final = 4  # bytes
_TAG: Final = b"\x81\x00"  # IEEE 802.1Q, behind both addresses
_TAG_AT: Final = 2 * ADDRESS
_MAX_VLAN: Final = 4095


def accepts(state: NetState, frame: bytes, *, by_vlan: bool) -> bool:
    """Return whether the guest wants the frame; ``by_vlan``: of tagged ones only those of its VLANs."""
    if state.promiscuous:
        return True
    if by_vlan and frame[_TAG_AT : _TAG_AT + 2] == _TAG and not _in_vlan(state, frame):
        return False
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
    if kind == CLASS_VLAN:
        return number < 2 and len(data) == 2 and _set_vlan(state, data, on=number == 0)
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


def _in_vlan(state: NetState, frame: bytes) -> bool:
    vlan = int.from_bytes(frame[_TAG_AT + 2 : _TAG_AT + 4], "big") & _MAX_VLAN
    return bool(state.vlans) and bool(state.vlans[vlan >> 3] >> (vlan & 7) & 1)


def _set_vlan(state: NetState, data: bytes, *, on: bool) -> bool:
    vlan = int.from_bytes(data, "little")
    if vlan > _MAX_VLAN:
        return False
    bits = int.from_bytes(state.vlans, "little")
    bits = bits | 1 << vlan if on else bits & ~(1 << vlan)
    state.vlans = bits.to_bytes(VLAN_BYTES, "little")
    return True


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
