"""ACPI machine language: as much of it as a description of this board's devices takes.

Every function returns the encoding of one term; terms are put together by passing them to others.

Source: ACPI specification 6.5, chapter 20 (encoding) and 6.4 (resource descriptors).
"""

from __future__ import annotations

import struct

from instar.errors import InternalBugError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

ZERO: Final = b"\x00"
ONE: Final = b"\x01"
LOCAL0: Final = b"\x60"
_NAME, _SCOPE, _BUFFER, _PACKAGE, _METHOD = b"\x08", b"\x10", b"\x11", b"\x12", b"\x14"
_IF, _STORE, _AND, _NOTIFY, _LNOT, _LEQUAL = b"\xa0", b"\x70", b"\x7b", b"\x86", b"\x92", b"\x93"
_REGION, _FIELD, _DEVICE = b"\x5b\x80", b"\x5b\x81", b"\x5b\x82"
_SEGMENT: Final = 4  # characters of a name segment
_MAX_PACKAGE: Final = 1 << 28
_FIELD_DWORD_ZEROES: Final = 0x43  # access in double words, no lock, the rest is written as zeroes
_END_TAG: Final = b"\x79\x00"  # a checksum of 0 is not checked


def name(path: str) -> bytes:
    r"""Return a name: ``\_SB_``, ``PWRB``; segments have 4 characters, ``_`` fills them.

    Raises:
        InternalBugError: not a name.
    """
    root = path.startswith("\\")
    segments = [part.ljust(_SEGMENT, "_") for part in path.lstrip("\\").split(".")]
    for segment in segments:
        good = segment.isascii() and segment.replace("_", "A").isalnum() and segment.isupper()
        if len(segment) != _SEGMENT or not good or segment[0].isdigit():
            raise InternalBugError(f"AML: {path!r} is not a name")
    joined = "".join(segments).encode()
    prefix = {1: b"", 2: b"\x2e"}.get(len(segments), b"\x2f" + bytes((len(segments),)))
    return (b"\\" if root else b"") + prefix + joined


def integer(value: int) -> bytes:
    """Return a constant, 0 to 2**64 - 1, in its shortest form."""
    if value < 2:
        return (ZERO, ONE)[value]
    for code, width in ((b"\x0a", 1), (b"\x0b", 2), (b"\x0c", 4), (b"\x0e", 8)):
        if value < 1 << 8 * width:
            return code + value.to_bytes(width, "little")
    raise InternalBugError(f"AML: {value:#x} has more than 64 bits")


def string(text: str) -> bytes:
    """Return a string of ASCII characters."""
    return b"\x0d" + text.encode("ascii") + b"\0"


def eisa_id(text: str) -> bytes:
    """Return the number that stands for an id such as ``PNP0C0C``."""
    letters, product = text[:3], int(text[3:], 16)
    vendor = 0
    for letter in letters:
        vendor = vendor << 5 | ord(letter) - 0x40
    return b"\x0c" + struct.pack(">HH", vendor, product)


def package_length(body: bytes) -> bytes:
    """Return the length that precedes ``body``; it counts itself (20.2.4)."""
    if len(body) + 1 < 0x40:
        return bytes((len(body) + 1,))
    for extra in (1, 2, 3):
        total = len(body) + 1 + extra
        if total < 1 << 4 + 8 * extra:
            head = extra << 6 | total & 0xF
            return bytes((head,)) + (total >> 4).to_bytes(extra, "little")
    raise InternalBugError(f"AML: a term of {len(body)} bytes, limit {_MAX_PACKAGE}")


def _with_length(code: bytes, body: bytes) -> bytes:
    return code + package_length(body) + body


def named(path: str, value: bytes) -> bytes:
    """Return ``Name (path, value)``."""
    return _NAME + name(path) + value


def scope(path: str, *terms: bytes) -> bytes:
    """Return ``Scope (path) { terms }``."""
    return _with_length(_SCOPE, name(path) + b"".join(terms))


def device(path: str, *terms: bytes) -> bytes:
    """Return ``Device (path) { terms }``."""
    return _with_length(_DEVICE, name(path) + b"".join(terms))


def method(path: str, arguments: int, *terms: bytes) -> bytes:
    """Return ``Method (path, arguments, Serialized) { terms }``."""
    return _with_length(_METHOD, name(path) + bytes((arguments | 8,)) + b"".join(terms))


def package(*elements: bytes) -> bytes:
    """Return ``Package () { elements }``."""
    return _with_length(_PACKAGE, bytes((len(elements),)) + b"".join(elements))


def buffer(data: bytes) -> bytes:
    """Return ``Buffer () { data }``."""
    return _with_length(_BUFFER, integer(len(data)) + data)


def memory_region(path: str, base: int, size: int) -> bytes:
    """Return ``OperationRegion (path, SystemMemory, base, size)``."""
    return _REGION + name(path) + b"\x00" + integer(base) + integer(size)


def words(region: str, *fields: str) -> bytes:
    """Return a ``Field`` of 32-bit words in ``region``, from its start."""
    body = b"".join(name(field) + package_length_bits(32) for field in fields)
    return _with_length(_FIELD, name(region) + bytes((_FIELD_DWORD_ZEROES,)) + body)


def package_length_bits(bits: int) -> bytes:
    """Return a field's width, up to 63 bits, in the encoding of lengths (which does not count itself here)."""
    if not 0 < bits < 0x40:
        raise InternalBugError(f"AML: a field of {bits} bits")
    return bytes((bits,))


def store(source: bytes, target: bytes) -> bytes:
    """Return ``target = source``."""
    return _STORE + source + target


def bit_and(left: bytes, right: bytes) -> bytes:
    """Return ``left & right``."""
    return _AND + left + right + ZERO


def equal(left: bytes, right: bytes) -> bytes:
    """Return ``left == right``."""
    return _LEQUAL + left + right


def if_(condition: bytes, *terms: bytes) -> bytes:
    """Return ``If (condition) { terms }``."""
    return _with_length(_IF, condition + b"".join(terms))


def notify(path: str, value: int) -> bytes:
    """Return ``Notify (path, value)``."""
    return _NOTIFY + name(path) + integer(value)


def resources(*descriptors: bytes) -> bytes:
    """Return ``ResourceTemplate () { descriptors }``."""
    return buffer(b"".join(descriptors) + _END_TAG)


def memory32_fixed(base: int, size: int) -> bytes:
    """Return ``Memory32Fixed (ReadWrite, base, size)`` (6.4.3.4)."""
    return struct.pack("<BHBII", 0x86, 9, 1, base, size)


def io_ports(base: int, size: int) -> bytes:
    """Return ``IO (Decode16, base, base, 1, size)`` (6.4.2.5)."""
    return struct.pack("<BBHHBB", 0x47, 1, base, base, 1, size)


def isa_irq(number: int) -> bytes:
    """Return ``IRQ (Edge, ActiveHigh, Exclusive) {number}`` (6.4.2.1)."""
    return struct.pack("<BHB", 0x23, 1 << number, 1)


def interrupt(number: int) -> bytes:
    """Return ``Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) {number}`` (6.4.3.6)."""
    return struct.pack("<BHBBI", 0x89, 6, 1, 1, number)
