"""The stream of an update with its manifest: refused with the part named, or read to its end."""

import os
from struct import Struct
from zlib import crc32

import fuzz_paths  # noqa: F401

from instar.cpr.encoding import encode
from instar.cpr.errors import CprError
from instar.cpr.stream import FORMAT, MAGIC, PAGE, Reader
from instar.cpr.writer import Writer

HEADER = Struct("<8sIII")
MEMORY = 4 * PAGE


def fuzz(data: bytes) -> None:
    """A first byte that is odd has the header's checksum made right, so that the manifest is looked at."""
    body = data[1:]
    if data and data[0] & 1:
        length = int.from_bytes(body[:2], "little")
        manifest = body[2 : 2 + length]
        body = HEADER.pack(MAGIC, FORMAT, len(manifest), crc32(manifest)) + body[2:]
    fd = os.memfd_create("fuzz")
    try:
        os.write(fd, body)
        read(fd)
    except CprError as error:
        assert str(error)
    finally:
        os.close(fd)


def read(fd: int) -> None:
    reader = Reader(fd)
    for name in reader.manifest.objects:
        assert isinstance(reader.record(name), dict)
    memories = {bulk.name: bulk.size for bulk in reader.manifest.bulk.values()}
    if sum(memories.values()) <= 1 << 20:
        reader.load_bulk({name: memoryview(bytearray(size)) for name, size in memories.items()})
    reader.finish()


def seeds() -> list[bytes]:
    """Whole streams, and manifests without a header."""
    found = [b"\1\4\0" + encode({"a": 1})]
    for count in range(3):
        fd = os.memfd_create("seed")
        writer = Writer(fd, program="0.1", mode="cpr-exec", info={"n": count})
        for n in range(count):
            writer.add(f"object/{n}", "ram", 1, {"value": n, "text": "x" * n})
            writer.add_bulk(f"ram{n}", memoryview(b"\1" * MEMORY))
        writer.finish()
        raw = os.pread(fd, 1 << 20, 0)
        os.close(fd)
        length = HEADER.unpack(raw[: HEADER.size])[2]
        found += [b"\0" + raw, b"\1" + length.to_bytes(2, "little") + raw[HEADER.size :]]
    return found
