"""Scripts for hostile drivers: well-made chains with the headers of each device's requests."""

from __future__ import annotations

import struct

CHAIN, HOST, RESTART = 0, 7, 10  # steps of instar.testing.hostile


def chain(queue: int, *parts: bytes | int, first: int = 0) -> bytes:
    """A chain on a queue: bytes to read, or room of that size."""
    script = bytes([CHAIN, queue, len(parts) - 1, first])
    for n, part in enumerate(parts):
        if isinstance(part, int):
            script += bytes([0x80 | n]) + part.to_bytes(2, "little")
        else:
            script += bytes([n, len(part)]) + part
    return script


def host(*numbers: int) -> bytes:
    """Let the host do things."""
    return b"".join(bytes([HOST, 0, n]) for n in numbers)


def vsock_packet(op: int, data: bytes = b"", port: int = 6000, length: int = -1) -> bytes:
    size = len(data) if length < 0 else length
    header = struct.pack("<QQIIIHHIII", 3, 2, 1234, port, size, 1, op, 3, 1 << 16, 0)
    return chain(1, header + data)


def blk() -> list[bytes]:
    requests = [
        struct.pack("<IIQ", kind, 0, sector) for kind in (0, 1, 4, 8, 11, 13) for sector in (0, 63)
    ]
    ranges = struct.pack("<QII", 1, 2, 0)
    found = [chain(0, request, 512, 1) + host(1) for request in requests]
    found += [
        chain(0, request, bytes(90), 1) + chain(0, request, ranges, 1, first=4)
        for request in requests
    ]
    return [*found, b"".join(found[:6]) + host(0x12, 2, 3) + bytes([RESTART, 0])]


def net() -> list[bytes]:
    commands = [bytes([kind, number]) for kind in range(5) for number in range(6)]
    tables = struct.pack("<I6sI6s", 1, b"\x52\x54\0\0\0\1", 1, b"\1\0\x5e\0\0\1")
    found = [chain(2, command + b"\1", 1) for command in commands]
    found += [chain(2, b"\1\0" + tables, 1) + chain(0, 1600) + host(1, 2, 3, 255)]
    return [
        *found,
        chain(1, bytes(12), bytes(60)) + host(0, 0x10),
        chain(0, 64) * 4 + host(7, 0xFF),
    ]


def console() -> list[bytes]:
    ready = chain(3, struct.pack("<IHH", 0, 0, 1))
    says = [
        chain(3, struct.pack("<IHH", port, event, 1)) for port in (0, 1, 9) for event in range(8)
    ]
    rooms = chain(2, 64) + chain(2, 64, first=1)
    data = chain(5, b"text") + chain(4, 40) + host(3, 7, 8, 16, 17)
    return [ready + rooms + say + data for say in says] + [
        ready + b"".join(says[:12]) + rooms + data
    ]


def vsock() -> list[bytes]:
    packets = [vsock_packet(op, b"data") for op in range(9)]
    linked = vsock_packet(1) + host(0)
    found = [linked + packet + host(2, 16, 6, 24) for packet in packets]
    return [
        *found,
        host(1) + vsock_packet(2, port=1024),
        linked + vsock_packet(5, b"x", length=1 << 31),
    ]


def balloon() -> list[bytes]:
    pages = struct.pack("<4I", *(0x80000 + n for n in (130, 131, 200, 128)))
    stats = struct.pack("<HQHQ", 4, 1000, 77, 1)
    return [chain(queue, pages) for queue in (0, 1)] + [
        chain(2, stats) + host(9) * 2,
        chain(3, 0x1000, 0x1FFF),
    ]


def rng() -> list[bytes]:
    return [
        chain(0, 90) * 3 + host(255),
        chain(0, b"text"),
        chain(0, 200, 300) + bytes([RESTART, 0]) + host(1),
    ]


def vhost_user_blk() -> list[bytes]:
    return [chain(0, bytes(16), 512, 1) + host(n, 1) for n in (1, 0x81, 255)]


def vhost_user_fs() -> list[bytes]:
    return [chain(queue, bytes(40), 512) + host(1) for queue in (0, 1)]


def scripts(name: str) -> list[bytes]:
    """The scripts of a device."""
    return globals()[name]()
