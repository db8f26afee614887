"""Write a cpio archive as the kernel's initramfs loader reads it.

Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst ("newc", magic 070701).
"""

from __future__ import annotations

import stat
from typing import NamedTuple

ALIGN = 4  # bytes; headers with their names, and contents, end on this
BLOCK = 512  # bytes; what cpio(1) pads an archive to
LIMIT = 0xFFFF_FFFF  # a header field is eight hexadecimal digits


class Entry(NamedTuple):
    """One file of the archive.

    Attributes:
        path: Name relative to the root, without a leading slash.
        mode: File type and permissions as in ``st_mode``.
        data: Contents; for a symbolic link its target.
        device: Major and minor number of a device node, else (0, 0).
    """

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(path: str) -> Entry:
    """Return a directory anyone may enter."""
    return Entry(path, stat.S_IFDIR | 0o755)


def file(path: str, data: bytes, permissions: int = 0o644) -> Entry:
    """Return a regular file."""
    return Entry(path, stat.S_IFREG | permissions, data)


def link(path: str, target: str) -> Entry:
    """Return a symbolic link."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def character_device(path: str, major: int, minor: int) -> Entry:
    """Return a character device node that only root may use."""
    return Entry(path, stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: list[Entry]) -> bytes:
    """Return the archive of ``entries`` in their order.

    The same entries give the same bytes: owner 0, time 0, numbers counted from 1.

    Args:
        entries: Folders before what is in them, each path once.

    Raises:
        ValueError: a path is absolute or there twice, or a file is longer than 4 GiB - 1.

    Source: own; the format is the kernel's.
    """
    seen: set[str] = set()
    parts: list[bytes] = []
    for number, entry in enumerate(entries, start=1):
        if entry.path.startswith("/") or entry.path in seen:
            raise ValueError(f"cpio path {entry.path!r} is absolute or there twice")
        if len(entry.data) > LIMIT:
            raise ValueError(f"{entry.path}: {len(entry.data)} bytes, limit {LIMIT}")
        seen.add(entry.path)
        parts.append(_record(number, entry))
    parts.append(_record(0, Entry("TRAILER!!!", 0)))
    whole = b"".join(parts)
    return whole + bytes(-len(whole) % BLOCK)


def _record(number: int, entry: Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        number,
        entry.mode,
        0,  # uid
        0,  # gid
        links,
        0,  # mtime
        len(entry.data),
        0,  # device of the archive's file system, major
        0,  # ... minor
        *entry.device,
        len(name),
        0,  # checksum; this magic has none
    )
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    return head + bytes(-len(head) % ALIGN) + entry.data + bytes(-len(entry.data) % ALIGN)
