"""The clock's arithmetic: seconds since 1970 to registers and back, and when an alarm rings next.

Source: own; Motorola MC146818A data sheet for the formats.
"""

from __future__ import annotations

from time import gmtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

BINARY, HOURS_24 = 4, 2  # bits of register B
_PM: Final = 0x80
_ANY: Final = 0xC0  # an alarm register with both upper bits set matches always
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def encode(value: int, b: int) -> int:
    """Return a number, 0 to 99, in the format that register B says."""
    return value if b & BINARY else value // 10 << 4 | value % 10


def decode(raw: int, b: int) -> int:
    """Return what :func:`encode` was given; nonsense gives some number, 0 to 255."""
    return raw if b & BINARY else (raw >> 4) * 10 + (raw & 0xF)


def encode_hour(hour: int, b: int) -> int:
    """Return an hour, 0 to 23."""
    if b & HOURS_24:
        return encode(hour, b)
    return encode((hour + 11) % 12 + 1, b) | (_PM if hour >= 12 else 0)


def decode_hour(raw: int, b: int) -> int:
    """Return what :func:`encode_hour` was given."""
    if b & HOURS_24:
        return decode(raw, b)
    return decode(raw & ~_PM, b) % 12 + (12 if raw & _PM else 0)


def registers(seconds: int, b: int) -> bytes:
    """Return second, minute, hour, day of the week, day, month, year, century."""
    t = gmtime(seconds)
    return bytes(
        (
            encode(t.tm_sec, b), encode(t.tm_min, b), encode_hour(t.tm_hour, b), encode((t.tm_wday + 1) % 7 + 1, b),
            encode(t.tm_mday, b), encode(t.tm_mon, b), encode(t.tm_year % 100, b), encode(t.tm_year // 100 % 100, b),
        )
    )  # fmt: skip


def seconds_of(raw: bytes | bytearray, b: int) -> int:
    """Return the time in :func:`registers`; a date that does not exist is one near it."""
    second, minute, day, month, year, century = (decode(raw[n], b) for n in (0, 1, 4, 5, 6, 7))
    year = century % 100 * 100 + year % 100
    days = _days_before(year, (month - 1) % 12 + 1) + day - 1
    return days * _DAY + decode_hour(raw[2], b) * _HOUR + minute * _MINUTE + second


def _days_before(year: int, month: int) -> int:
    """Return days from 1970-01-01 to the first of the month (Gregorian; the year begins in March)."""
    year -= month <= 2
    months = (month - 3) % 12
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * months + 2) // 5 - 719468


def next_alarm(after: int, alarm: tuple[int, int, int], b: int) -> int:
    """Return the first second behind ``after`` at which the alarm rings, -1 if there is none.

    Args:
        after: Seconds since 1970.
        alarm: Registers for hour, minute and second.
        b: Register B.
    """
    hour = -1 if alarm[0] >= _ANY else decode_hour(alarm[0], b)
    minute, second = (-1 if raw >= _ANY else decode(raw, b) for raw in alarm[1:])
    if hour > 23 or minute > 59 or second > 59:
        return -1
    at = after + 1
    for _ in range(26 + 61):  # hours of a day, minutes of an hour, and one of each more
        if hour not in {-1, at // _HOUR % 24}:
            at = (at // _HOUR + 1) * _HOUR
        elif minute not in {-1, at // _MINUTE % 60}:
            at = (at // _MINUTE + 1) * _MINUTE
        elif second in {-1, at % 60}:
            return at
        elif at % 60 < second:
            at += second - at % 60
        else:
            at = (at // _MINUTE + 1) * _MINUTE
    return -1
