"""The self-describing encoding of everything that crosses: a subset of CBOR, with limits.

None, bool, int (-2**63 to 2**64 - 1), bytes, str, list and dict with distinct str keys. No floats, tags or
indefinite lengths. Any CBOR tool can read what is written here.

Source: RFC 8949, sections 3 and 3.1.
"""

from __future__ import annotations

from struct import Struct

from instar.cpr.errors import StateCorruptError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MAX_DEPTH: Final = 24  # nested states; a deeper one is an attack on the stack
MAX_VALUES: Final = 1 << 22  # values in one encoding; each costs the reader some 60 bytes
_UINT, _NEGATIVE, _BYTES, _TEXT, _LIST, _DICT, _SIMPLE = 0, 1, 2, 3, 4, 5, 7
_WIDE: Final = 24  # numbers from here on follow the initial byte, in 1, 2, 4 or 8 bytes
_WIDEST: Final = 27
_SHORT_TEXT: Final = _TEXT << 5
_HEAD_8: Final = Struct(">BB")
_HEAD_16: Final = Struct(">BH")
_HEAD_32: Final = Struct(">BI")
_HEAD_64: Final = Struct(">BQ")
_U64: Final = Struct(">Q")
_UINT_64: Final = _UINT << 5 | 27  # initial byte of a wide integer, which registers mostly are
_SIMPLE_VALUES: Final = {20: False, 21: True, 22: None}


def encode(value: object) -> bytes:
    """Return ``value`` encoded.

    Raises:
        TypeError, ValueError: A value is of another kind, too wide or too deep (our own bug).
    """
    out = bytearray()
    _encode(value, out, 0)
    return bytes(out)


def decode(data: bytes, what: str) -> object:
    """Return the one value that ``data`` (untrusted) encodes.

    Args:
        data: The whole encoding, nothing after it.
        what: Names the data in errors, as ``"section plic"``.

    Raises:
        StateCorruptError: Torn, malformed, too deep, too many values, or followed by something.
    """
    decoder = _Decoder(data, what)
    value = decoder.value(0)
    if decoder.at != len(data):
        raise decoder.corrupt(f"{len(data) - decoder.at} bytes too many")
    return value


def _head(major: int, number: int, out: bytearray) -> None:
    if number < 24:
        out.append(major << 5 | number)
    elif number < 1 << 8:
        out += _HEAD_8.pack(major << 5 | 24, number)
    elif number < 1 << 16:
        out += _HEAD_16.pack(major << 5 | 25, number)
    elif number < 1 << 32:
        out += _HEAD_32.pack(major << 5 | 26, number)
    elif number < 1 << 64:
        out += _HEAD_64.pack(major << 5 | 27, number)
    else:
        raise ValueError(f"integer of {number.bit_length()} bits, limit 64")


def _encode(value: object, out: bytearray, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, str):
        text = value.encode()
        _head(_TEXT, len(text), out)
        out += text
    elif value is None or value is True or value is False:
        out.append(_SIMPLE << 5 | {False: 20, True: 21, None: 22}[value])
    elif isinstance(value, int):
        _encode_int(value, out)
    elif isinstance(value, bytes):
        _head(_BYTES, len(value), out)
        out += value
    else:
        _encode_container(value, out, depth)


def _encode_int(value: int, out: bytearray) -> None:
    if value >= 0:
        _head(_UINT, value, out)
    elif value >= -(1 << 63):
        _head(_NEGATIVE, -1 - value, out)
    else:
        raise ValueError(f"integer of {value.bit_length()} bits and a sign, limit 64")


def _encode_container(value: object, out: bytearray, depth: int) -> None:
    if isinstance(value, list | tuple):
        items: list[object] | tuple[object, ...] = value  # pyright: ignore[reportUnknownVariableType]
        _head(_LIST, len(items), out)
        for item in items:
            if type(item) is int and item >= 0:  # lists of numbers are most of what there is
                _head(_UINT, item, out)
            else:
                _encode(item, out, depth + 1)
    elif isinstance(value, dict):
        pairs: dict[object, object] = value  # pyright: ignore[reportUnknownVariableType]
        _head(_DICT, len(pairs), out)
        for key, item in pairs.items():
            if not isinstance(key, str):
                raise TypeError(f"key {key!r} is not a str")
            text = key.encode()
            _head(_TEXT, len(text), out)
            out += text
            _encode(item, out, depth + 1)
    else:
        raise TypeError(f"a {type(value).__name__} cannot be encoded")


class _Decoder:
    """Reads one encoding; what is short, as most of a state is, with as few calls as can be: the guest waits."""

    __slots__ = ("at", "count", "data", "end", "what")

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.end = len(data)
        self.what = what
        self.at = 0
        self.count = 0

    def corrupt(self, why: str) -> StateCorruptError:
        return StateCorruptError(f"{self.what}: {why} at byte {self.at}; nothing was loaded")

    def value(self, depth: int) -> object:
        self.count += 1
        if depth > MAX_DEPTH:
            raise self.corrupt(f"nested deeper than {MAX_DEPTH}")
        if self.count > MAX_VALUES:
            raise self.corrupt(f"more than {MAX_VALUES} values")
        if self.at >= self.end:
            raise self._torn(1)
        first = self.data[self.at]
        self.at += 1
        if first < _WIDE:
            return first
        if first & 31 < _WIDE:
            return self._composite(first >> 5, first & 31, depth)
        number = self._number(first)
        return number if first <= _UINT_64 else self._composite(first >> 5, number, depth)

    def _number(self, first: int) -> int:
        """Return the number that follows an initial byte."""
        if first & 31 > _WIDEST or first >> 5 == _SIMPLE:
            raise self.corrupt(f"initial byte {first:#04x} is not one of ours")
        return int.from_bytes(self._take(1 << (first & 31) - _WIDE), "big")

    def _composite(self, major: int, number: int, depth: int) -> object:
        if major == _TEXT:
            return self._text(number)
        if major in (_LIST, _DICT):
            if number > self.end - self.at:
                raise self.corrupt(f"{number} items announced, {self.end - self.at} bytes left")
            return self._items(number, depth + 1) if major == _LIST else self._pairs(number, depth)
        if major == _BYTES:
            return self._take(number)
        if major == _SIMPLE and number in _SIMPLE_VALUES:
            return _SIMPLE_VALUES[number]
        if major != _NEGATIVE:
            raise self.corrupt(f"type {major} with {number} is not one of ours")
        if number >> 63:
            raise self.corrupt("integer below -2**63")
        return -1 - number

    def _items(self, number: int, depth: int) -> list[object]:
        if number > MAX_VALUES - self.count:
            raise self.corrupt(f"more than {MAX_VALUES} values")
        found: list[object] = []
        data, end = self.data, self.end
        for _ in range(number):
            first = data[self.at] if self.at < end else 0xFF
            if (
                first < _WIDE
            ):  # the short way for lists of registers, nearly all of which are 0 or wide
                found.append(first)
                self.at += 1
            elif first == _UINT_64 and self.at + 9 <= end:
                found.append(_U64.unpack_from(data, self.at + 1)[0])
                self.at += 9
            else:
                self.count -= 1  # value() counts it
                found.append(self.value(depth))
        self.count += number
        return found

    def _pairs(self, number: int, depth: int) -> dict[str, object]:
        if 2 * number > MAX_VALUES - self.count:
            raise self.corrupt(f"more than {MAX_VALUES} values")
        found: dict[str, object] = {}
        for _ in range(number):
            at = self.at
            size = self.data[at] - _SHORT_TEXT if at < self.end else -1
            if 0 <= size < _WIDE:  # as the name of every field is
                self.at = at + 1
                self.count += 1
                key: object = self._text(size)
            else:
                key = self.value(depth + 1)
            if not isinstance(key, str) or key in found:
                raise self.corrupt("key is doubled or not a text")
            found[key] = self.value(depth + 1)
        return found

    def _torn(self, size: int) -> StateCorruptError:
        return self.corrupt(f"torn: {size} bytes announced, {self.end - self.at} left")

    def _take(self, size: int) -> bytes:
        at = self.at
        if size > self.end - at:
            raise self._torn(size)
        self.at = at + size
        return self.data[at : at + size]

    def _text(self, size: int) -> str:
        at = self.at
        if size > self.end - at:
            raise self._torn(size)
        self.at = at + size
        try:
            return self.data[at : at + size].decode()
        except UnicodeDecodeError:
            raise self.corrupt("text is not UTF-8") from None
