"""The stream of an update: a manifest that is readable alone, then state sections, then bulk memory. Reading it.

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

from instar.cpr.encoding import decode
from instar.cpr.errors import (
    DescriptorError,
    StateCorruptError,
    StateInvalidError,
    StateTooNewError,
)
from instar.cpr.manifest import read_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from typing import Final

    from instar.cpr.state import Record

MAGIC: Final = b"\x89INSTAR\n"  # the first byte is not text, the last one shows newline conversion
FORMAT: Final = 1
MAX_MANIFEST: Final = 1 << 22  # bytes
MAX_CHUNK: Final = 1 << 20  # bytes
PAGE: Final = 4096
_READ_AHEAD: Final = 1 << 16  # one read brings header, manifest and most states
HEADER: Final = Struct("<8sIII")
CHUNK: Final = Struct("<IIQI")  # number, length, offset, crc32
END: Final = 0xFFFFFFFF


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
        magic, number, length, crc = HEADER.unpack(self._in.take(HEADER.size, "header"))
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
            number, length, start, crc = CHUNK.unpack(self._in.take(CHUNK.size, what))
            if number == END:
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
        self._at = offset if seekable(fd) else -1
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


def _check_crc(data: bytes, crc: int, what: str) -> None:
    if crc32(data) != crc:
        raise StateCorruptError(f"{what}: checksum {crc32(data):#010x}, expected {crc:#010x}")


def seekable(fd: int) -> bool:
    """Return whether the descriptor has a position that can be set."""
    try:
        os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return False
    return True
