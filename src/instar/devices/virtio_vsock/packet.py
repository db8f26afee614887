"""The packets of virtio-vsock.

Source: virtio 1.2, 5.10.6.
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

HOST_CID: Final = 2
STREAM: Final = 1
REQUEST, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST = range(1, 8)

# src_cid, dst_cid, src_port, dst_port, len, type, op, flags, buf_alloc, fwd_cnt
_HEADER: Final = Struct("<QQIIIHHIII")
HEADER_SIZE: Final = _HEADER.size


class Packet:
    """A header that the guest wrote."""

    __slots__ = (
        "buffer", "dst_cid", "dst_port", "flags", "forwarded", "length", "op", "src_cid",
        "src_port", "type",
    )  # fmt: skip

    src_cid: int
    dst_cid: int
    src_port: int
    dst_port: int
    length: int
    type: int
    op: int
    flags: int
    buffer: int
    forwarded: int

    def __init__(self, raw: bytes) -> None:
        (
            self.src_cid, self.dst_cid, self.src_port, self.dst_port, self.length, self.type,
            self.op, self.flags, self.buffer, self.forwarded,
        ) = _HEADER.unpack(raw)  # fmt: skip


def header(  # noqa: PLR0913 - the fields of a header
    guest_cid: int,
    host_port: int,
    guest_port: int,
    op: int,
    *,
    length: int = 0,
    flags: int = 0,
    buffer: int = 0,
    forwarded: int = 0,
) -> bytes:
    """Return the header of a packet to the guest."""
    return _HEADER.pack(
        HOST_CID, guest_cid, host_port, guest_port, length, STREAM, op, flags, buffer, forwarded
    )
