"""Sizes as people write and read them."""

from __future__ import annotations

from instar.errors import ConfigError

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
MAX_SIZE = (1 << 63) - 1  # what off_t holds; larger never names a real object

_UNITS = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}  # suffix -> shift
_NAMES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_DIGITS = frozenset("0123456789")
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_MAX_TEXT = 40  # characters; int() of unbounded text is quadratic


def parse_int(text: str) -> int:
    """Return the whole number in ``text``: decimal or ``0x`` hexadecimal, optional ``-``.

    Raises:
        ConfigError: not such a number, or longer than 40 characters.

    Source: own; stricter than ``int(text, 0)``, which takes underscores and other scripts' digits.
    """
    digits = text.removeprefix("-")
    base = 10
    allowed = _DIGITS
    if digits[:2] in {"0x", "0X"}:
        digits, base, allowed = digits[2:], 16, _HEX_DIGITS
    if not digits or len(digits) > _MAX_TEXT or not allowed.issuperset(digits):
        raise ConfigError(
            f"{shorten(text)} is not a whole number (decimal, or hexadecimal with 0x)"
        )
    value = int(digits, base)
    return -value if text.startswith("-") else value


def parse_size(text: str, default_unit: str = "B") -> int:
    """Return the bytes that ``text`` means.

    Args:
        text: ``4096``, ``0x1000``, ``512M``, ``1.5G``; suffixes b k M G T P E in either case,
            powers of 1024; a fraction is cut to whole bytes.
        default_unit: The suffix taken when there is none.

    Returns:
        Bytes, 0 to 2**63 - 1.

    Raises:
        ConfigError: not a size, or too large.

    Source: QEMU's size grammar.
    """
    if text[:2] in {"0x", "0X"}:
        size = parse_int(text) << _UNITS[default_unit.lower()]
    else:
        size = _parse_decimal_size(text, default_unit)
    if size > MAX_SIZE:
        raise ConfigError(f"{shorten(text)} is too large for a size (at most {MAX_SIZE} bytes)")
    return size


def _parse_decimal_size(text: str, default_unit: str) -> int:
    suffix = text[-1:].lower()
    number = text[:-1] if suffix in _UNITS else text
    shift = _UNITS[suffix if suffix in _UNITS else default_unit.lower()]
    whole, dot, fraction = number.partition(".")
    if (
        not whole
        or len(number) > _MAX_TEXT
        or bool(dot) != bool(fraction)
        or (dot and not shift)  # parts of a byte
        or not _DIGITS.issuperset(whole + fraction)
    ):
        raise ConfigError(
            f"{shorten(text)} is not a size (a number, then optionally b, k, M, G, T, P or E)"
        )
    tenths: int = 10 ** len(fraction)  # annotated: an int to a power is Any to mypy
    return (int(whole + fraction) << shift) // tenths


def format_size(size: int) -> str:
    """Return ``size`` bytes for people, three significant digits: ``4 KiB``, ``1.5 GiB``, ``0 B``.

    Source: own; the same figures as QEMU's monitor prints.
    """
    value = float(size)
    step = 0
    while value >= 1000 and step < len(_NAMES) - 1:
        value /= 1024
        step += 1
    return f"{value:.3g} {_NAMES[step]}"


def exact_size(size: int) -> str:
    """Return ``size`` for an error text: the exact bytes, and the rounded size where it helps."""
    return f"{size} bytes" if size < KIB else f"{size} bytes ({format_size(size)})"


def shorten(text: str) -> str:
    """Quote user text for an error: escaped, at most about 60 characters."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
