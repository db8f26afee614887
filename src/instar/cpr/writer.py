"""The stream of an update, written: format and limits are those of ``stream``, where it is read.

Not on the resume path.
"""

from __future__ import annotations

import os
from zlib import crc32

from instar.cpr.encoding import encode
from instar.cpr.errors import StateInvalidError
from instar.cpr.manifest import MAX_NAME, MAX_OBJECTS, MAX_SECTIONS, Bulk
from instar.cpr.stream import (
    CHUNK,
    END,
    FORMAT,
    HEADER,
    MAGIC,
    MAX_CHUNK,
    MAX_MANIFEST,
    PAGE,
    seekable,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping
    from typing import Final

    from instar.cpr.state import Record

_ZERO_CHUNK: Final = bytes(MAX_CHUNK)
_ZERO_PAGE: Final = bytes(PAGE)


class Writer:
    """Write a stream to ``fd``, in turns of the main loop if wanted.

    First :meth:`add` and :meth:`add_bulk` everything, then :meth:`step` until it returns true. An
    ``OSError`` of the descriptor passes through (ENOSPC, EPIPE): what was written is then useless.

    Args:
        fd: A file (written at ``offset``, its own position does not move), pipe or socket.
        offset: Bytes from the file's beginning; must be 0 if the descriptor cannot seek.
        program: Version of this program.
        mode: Migration mode.
        info: More for the manifest, as the configuration that the reader has to match.
    """

    def __init__(
        self, fd: int, *, offset: int = 0, program: str, mode: str, info: Record | None = None
    ) -> None:
        self.written = 0  # bytes so far
        self._out = _Output(fd, offset)
        self._head: Record = {"program": program, "mode": mode, "info": info or {}}
        self._objects: list[Record] = []
        self._names: set[str] = set()
        self._sections: list[bytes] = []
        self._size = 0
        self._memories: list[tuple[Bulk, memoryview, Iterable[tuple[int, int]]]] = []
        self._turns: Generator[bytes] | None = None

    def add(
        self,
        object_id: str,
        state_name: str,
        version: int,
        record: Record,
        inner: Mapping[str, int] | None = None,
    ) -> None:
        """Add an object's record (it is encoded at once, so later changes do not matter).

        ``inner`` has the versions of the states inside it, for the manifest.

        Raises:
            StateInvalidError: The id is taken or too long, or the stream's limits are exceeded.
        """
        self._check_name(object_id)
        data = encode(record)
        if len(self._objects) >= MAX_OBJECTS or self._size + len(data) > MAX_SECTIONS:
            limit = f"{MAX_OBJECTS} objects, {MAX_SECTIONS} bytes"
            raise StateInvalidError(f"{object_id}: the stream is full ({limit})", object_id)
        row: Record = {
            "id": object_id,
            "state": state_name,
            "version": version,
            "offset": self._size,
            "length": len(data),
            "crc": crc32(data),
        }
        if inner:
            row["inner"] = dict(inner)
        self._objects.append(row)
        self._sections.append(data)
        self._size += len(data)

    def add_bulk(
        self, name: str, view: memoryview, extents: Iterable[tuple[int, int]] | None = None
    ) -> None:
        """Add memory; it is read while it is written out, and pages of zeros are left out.

        Args:
            name: Unique in the stream.
            view: Bytes, format ``"B"``.
            extents: (offset, length) pairs in bytes that can hold something (see
                :func:`data_extents`); the rest is taken as zero without touching it.
        """
        self._check_name(name)
        self._memories.append((Bulk(name, len(view)), view, extents or ((0, len(view)),)))

    def step(self, budget: int) -> bool:
        """Write about ``budget`` bytes (at least something); true when everything is out.

        A descriptor that takes nothing now (EAGAIN) ends the turn early.
        """
        if self._turns is None:
            self._turns = self._pieces()
        goal = self.written + budget
        while self.written < goal:
            if not self._out.pending:
                piece = next(self._turns, None)
                if piece is None:
                    return True
                self._out.pending = memoryview(piece)
            sent = self._out.send()
            if not sent:
                return False
            self.written += sent
        return False

    def finish(self) -> None:
        """Write everything that is left (a blocking descriptor is expected)."""
        while not self.step(MAX_CHUNK):
            pass

    def _check_name(self, name: str) -> None:
        if self._turns is not None:
            raise TypeError(f"{name}: the manifest is already written")
        fits = 1 <= len(name.encode()) <= MAX_NAME and name.isprintable()
        if name in self._names or not fits:
            why = f"taken, or not 1 to {MAX_NAME} printable bytes"
            raise StateInvalidError(f"{name[:48]!r}: {why}", name)
        self._names.add(name)

    def _pieces(self) -> Generator[bytes]:
        bulk = [{"name": memory.name, "size": memory.size} for memory, _, _ in self._memories]
        manifest = encode({**self._head, "objects": self._objects, "bulk": bulk})
        if len(manifest) > MAX_MANIFEST:
            raise StateInvalidError(f"manifest: {len(manifest)} bytes, limit {MAX_MANIFEST}")
        header = HEADER.pack(MAGIC, FORMAT, len(manifest), crc32(manifest))
        yield b"".join((header, manifest, *self._sections))
        chunks = 0
        for number, (_, view, extents) in enumerate(self._memories):
            for start, data in _runs(view, extents):
                chunks += 1
                yield CHUNK.pack(number, len(data), start, crc32(data)) + data
        yield CHUNK.pack(END, 0, chunks, 0)


class _Output:
    """Where a stream goes: positioned writes if the descriptor can seek, plain ones if not."""

    __slots__ = ("_at", "_fd", "pending")

    def __init__(self, fd: int, offset: int) -> None:
        self._fd = fd
        self._at = offset if seekable(fd) else -1
        self.pending = memoryview(b"")
        if offset and self._at < 0:
            raise StateInvalidError(f"offset: {offset} in a descriptor that cannot seek")

    def send(self) -> int:
        """Write some of ``pending``; 0: the descriptor takes nothing now."""
        try:
            if self._at < 0:
                sent = os.write(self._fd, self.pending)
            else:
                sent = os.pwrite(self._fd, self.pending, self._at)
                self._at += sent
        except BlockingIOError:
            return 0
        self.pending = self.pending[sent:]
        return sent


def data_extents(fd: int, size: int) -> Generator[tuple[int, int]]:
    """Yield (offset, length) in bytes of the parts of a file or memfd that are not holes.

    A hole need not be read to know that it is zero; reading it would give it memory.
    """
    at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole up to the end
            return
        end = min(size, os.lseek(fd, at, os.SEEK_HOLE))
        if at < end:
            yield at, end - at
        at = end


def _runs(view: memoryview, extents: Iterable[tuple[int, int]]) -> Generator[tuple[int, bytes]]:
    # (offset, bytes) of everything that is not a page of zeros, in runs of at most MAX_CHUNK.
    for begin, length in extents:
        for at in range(begin, begin + length, MAX_CHUNK):
            data = bytes(view[at : min(at + MAX_CHUNK, begin + length)])
            if data == _ZERO_CHUNK[: len(data)]:
                continue
            yield from ((at + start, data[start:end]) for start, end in _filled(data))


def _filled(data: bytes) -> Generator[tuple[int, int]]:
    # Bounds of the runs of pages that are not zero.
    start = -1
    for page in range(0, len(data), PAGE):
        piece = data[page : page + PAGE]
        if piece == _ZERO_PAGE[: len(piece)]:
            if start >= 0:
                yield start, page
            start = -1
        elif start < 0:
            start = page
    if start >= 0:
        yield start, len(data)
