"""The stream of an update: a manifest that is readable alone, then state sections, then bulk memory.

::

    header    magic, format, manifest length, manifest crc32
    manifest  program, mode, info; per object: id, state, version, offset, length, crc32, versions of the states
              inside it if there are any; bulk: name, size
    sections  one encoded record each, offsets counted from the end of the manifest
    chunks    (bulk number, offset, length, crc32) and that many bytes; zero pages are left out
    end mark  a chunk of number 0xffffffff; its offset is the count of chunks

Nothing is written twice, so pipes and sockets work as well as files. The manifest tells a reader with one
read whether it can take the rest, before anybody is paused.
"""

from __future__ import annotations

import os
from struct import Struct
from zlib import crc32

from instar.cpr.encoding import decode, encode
from instar.cpr.errors import (
    DescriptorError,
    StateCorruptError,
    StateInvalidError,
    StateTooNewError,
)
from instar.cpr.manifest import MAX_NAME, MAX_OBJECTS, MAX_SECTIONS, Bulk, read_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping
    from typing import Final

    from instar.cpr.state import Record

MAGIC: Final = b"\x89INSTAR\n"  # the first byte is not text, the last one shows newline conversion
FORMAT: Final = 1
MAX_MANIFEST: Final = 1 << 22  # bytes
MAX_CHUNK: Final = 1 << 20  # bytes
PAGE: Final = 4096
_READ_AHEAD: Final = 1 << 16  # one read brings header, manifest and most states
_HEADER: Final = Struct("<8sIII")
_CHUNK: Final = Struct("<IIQI")  # number, length, offset, crc32
_END: Final = 0xFFFFFFFF
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
        header = _HEADER.pack(MAGIC, FORMAT, len(manifest), crc32(manifest))
        yield b"".join((header, manifest, *self._sections))
        chunks = 0
        for number, (_, view, extents) in enumerate(self._memories):
            for start, data in _runs(view, extents):
                chunks += 1
                yield _CHUNK.pack(number, len(data), start, crc32(data)) + data
        yield _CHUNK.pack(_END, 0, chunks, 0)


class _Output:
    """Where a stream goes: positioned writes if the descriptor can seek, plain ones if not."""

    __slots__ = ("_at", "_fd", "pending")

    def __init__(self, fd: int, offset: int) -> None:
        self._fd = fd
        self._at = offset if _seekable(fd) else -1
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


class Reader:
    """Read a stream (untrusted) from ``fd``; the manifest is there when the constructor returns.

    Args:
        fd: As for :class:`Writer`; must block.
        offset: Bytes from the file's beginning.
        head: What was already read from a descriptor that cannot seek.

    Raises:
        StateCorruptError: Not a stream, torn or damaged; the text says where.
        StateTooNewError: A format that this program does not know.
        DescriptorError: The host refused to read, here or later.
    """

    def __init__(self, fd: int, *, offset: int = 0, head: bytes = b"") -> None:
        self._in = _Input(fd, offset, head)
        magic, number, length, crc = _HEADER.unpack(self._in.take(_HEADER.size, "header"))
        if magic != MAGIC:
            raise StateCorruptError(f"header: bad magic {magic.hex()}; nothing was loaded")
        if number != FORMAT:
            text = (
                f"header: stream format {number}, this program reads {FORMAT}; nothing was loaded"
            )
            raise StateTooNewError(text)
        if length > MAX_MANIFEST:
            raise StateCorruptError(f"manifest: {length} bytes, limit {MAX_MANIFEST}")
        data = self._in.take(length, "manifest")
        _check_crc(data, crc, "manifest")
        self.manifest = read_manifest(decode(data, "manifest"))
        self._sections: dict[str, bytes] | None = None
        self._torn: StateCorruptError | None = None
        self._turns: Generator[int] | None = None

    def record(self, object_id: str) -> Record:
        """Return an object's record, whole and decoded; its fields are still untrusted.

        Raises:
            StateCorruptError: No such object, torn or damaged; others can still be read.
        """
        what = f"section {object_id}"
        section = self.manifest.objects.get(object_id)
        if section is None:
            raise StateCorruptError(f"{what}: is not in the stream")
        data = self._read_sections().get(object_id)
        if data is None:
            if self._torn is not None and str(self._torn).startswith(f"{what}:"):
                raise self._torn
            raise StateCorruptError(f"{what}: torn, the stream ends before it")
        _check_crc(data, section.crc, what)
        record = decode(data, what)
        if not isinstance(record, dict):
            raise StateCorruptError(f"{what}: is not a record")
        return record  # pyright: ignore[reportUnknownVariableType]

    def load_bulk(self, views: Mapping[str, memoryview]) -> None:
        """Say where the memories go: fresh ones, since pages of zeros are not in the stream.

        Raises:
            StateInvalidError: A memory is missing, unknown or of another size; nothing was loaded.
        """
        wanted = {bulk.name: bulk.size for bulk in self.manifest.bulk.values()}
        found = {name: len(view) for name, view in views.items()}
        if wanted != found:
            raise StateInvalidError(f"memory: stream has {wanted}, this program {found}", "memory")
        self._turns = self._chunks([views[name] for name in self.manifest.bulk])

    def skip_bulk(self) -> None:
        """Say that memory goes nowhere: :meth:`step` and :meth:`finish` only check it."""
        self._turns = self._chunks([])

    def step(self, budget: int) -> bool:
        """Load about ``budget`` bytes of memory; true when the end mark was seen.

        Raises:
            StateCorruptError: Torn or damaged; the memories are partly written.
        """
        if self._turns is None:
            self.load_bulk({})
        assert self._turns is not None
        done = 0
        for size in self._turns:
            done += size
            if done >= budget:
                return False
        return True

    def finish(self) -> None:
        """Load everything that is left, up to the end mark."""
        while not self.step(MAX_CHUNK):
            pass

    def _read_sections(self) -> dict[str, bytes]:
        if self._sections is None:
            self._sections = {}
            try:
                for section in self.manifest.objects.values():
                    what = f"section {section.id}"
                    self._sections[section.id] = self._in.take(section.length, what)
            except StateCorruptError as exc:
                self._torn = exc
        return self._sections

    def _chunks(self, views: list[memoryview]) -> Generator[int]:
        self._read_sections()
        if self._torn is not None:
            raise self._torn
        sizes = [bulk.size for bulk in self.manifest.bulk.values()]
        number: int
        length: int
        start: int
        crc: int
        count = 0
        while True:
            what = f"chunk {count}"
            number, length, start, crc = _CHUNK.unpack(self._in.take(_CHUNK.size, what))
            if number == _END:
                if (length, start, crc) != (0, count, 0):
                    raise StateCorruptError(f"end mark: {start} chunks announced, {count} read")
                return
            if number >= len(sizes) or not 0 < length <= MAX_CHUNK:
                raise StateCorruptError(f"{what}: memory {number}, {length} bytes; out of range")
            if start + length > sizes[number]:
                raise StateCorruptError(f"{what}: bytes {start}+{length} are outside the memory")
            data = self._in.take(length, what)
            _check_crc(data, crc, what)
            if views:
                views[number][start : start + length] = data
            count += 1
            yield length


class _Input:
    """Where a stream comes from, with read-ahead."""

    __slots__ = ("_at", "_fd", "_left", "_used")

    def __init__(self, fd: int, offset: int, head: bytes) -> None:
        self._fd = fd
        self._at = offset if _seekable(fd) else -1
        self._left = head
        self._used = 0

    def take(self, size: int, what: str) -> bytes:
        """Return exactly ``size`` bytes, or raise StateCorruptError: the stream is torn."""
        parts: list[bytes] = []
        missing = size
        while missing:
            if self._used == len(self._left):
                self._left, self._used = self._read(max(missing, _READ_AHEAD)), 0
                if not self._left:
                    raise StateCorruptError(
                        f"{what}: torn, {size - missing} of {size} bytes are there"
                    )
            part = self._left[self._used : self._used + missing]
            self._used += len(part)
            missing -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _read(self, size: int) -> bytes:
        size = min(size, MAX_CHUNK)  # an announced length must not make us reserve memory
        try:
            data = os.read(self._fd, size) if self._at < 0 else os.pread(self._fd, size, self._at)
        except (OSError, OverflowError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else str(exc)
            raise DescriptorError(f"the state cannot be read: {why}") from exc
        if self._at >= 0:
            self._at += len(data)
        return data


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


def _check_crc(data: bytes, crc: int, what: str) -> None:
    if crc32(data) != crc:
        raise StateCorruptError(f"{what}: checksum {crc32(data):#010x}, expected {crc:#010x}")


def _seekable(fd: int) -> bool:
    try:
        os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return False
    return True


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
