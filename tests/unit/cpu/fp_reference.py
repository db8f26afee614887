"""IEEE 754 as RISC-V wants it, in exact fractions: slow, obvious, and written apart from the CPU's integer code."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

NX, UF, OF, DZ, NV = 1, 2, 4, 8, 16
RNE, RTZ, RDN, RUP, RMM = range(5)


class Format(NamedTuple):
    """A binary format: width, bits of the fraction, bias of the exponent."""

    bits: int
    fraction: int
    bias: int

    @property
    def infinity(self) -> int:
        return (2 * self.bias + 1) << self.fraction

    @property
    def nan(self) -> int:
        return self.infinity | 1 << (self.fraction - 1)

    @property
    def sign(self) -> int:
        return 1 << (self.bits - 1)

    @property
    def smallest_normal(self) -> Fraction:
        return Fraction(1, 1 << (self.bias - 1))


SINGLE = Format(32, 23, 127)
DOUBLE = Format(64, 52, 1023)
Result = tuple[int, int]  # bit pattern, flags


def is_nan(bits: int, fmt: Format) -> bool:
    return bits & (fmt.sign - 1) > fmt.infinity


def is_signalling(bits: int, fmt: Format) -> bool:
    return is_nan(bits, fmt) and not bits >> (fmt.fraction - 1) & 1


def is_infinite(bits: int, fmt: Format) -> bool:
    return bits & (fmt.sign - 1) == fmt.infinity


def is_negative(bits: int, fmt: Format) -> bool:
    return bool(bits & fmt.sign)


def value(bits: int, fmt: Format) -> Fraction:
    """Return the number a finite pattern stands for."""
    exponent = (bits & (fmt.sign - 1)) >> fmt.fraction
    fraction = bits & ((1 << fmt.fraction) - 1)
    if exponent:
        fraction |= 1 << fmt.fraction
    scale = max(exponent, 1) - fmt.bias - fmt.fraction
    magnitude = Fraction(fraction) * Fraction(2) ** scale
    return -magnitude if is_negative(bits, fmt) else magnitude


def round_integer(number: Fraction, mode: int) -> int:
    """Round to an integer in one of the five modes."""
    if mode == RNE:
        return round(number)
    if mode == RTZ:
        return math.trunc(number)
    if mode == RDN:
        return math.floor(number)
    if mode == RUP:
        return math.ceil(number)
    away = math.floor(abs(number) + Fraction(1, 2))
    return away if number >= 0 else -away


def exponent_of(number: Fraction) -> int:
    """Return e with 2**e <= |number| < 2**(e + 1)."""
    number = abs(number)
    guess = number.numerator.bit_length() - number.denominator.bit_length()
    return guess if Fraction(2) ** guess <= number else guess - 1


def to_precision(number: Fraction, lowest: int, mode: int) -> Fraction:
    """Round to a multiple of 2**lowest."""
    unit = Fraction(2) ** lowest
    return round_integer(number / unit, mode) * unit


def encode(number: Fraction, fmt: Format) -> int:
    """Return the pattern of a representable number."""
    sign = fmt.sign if number < 0 else 0
    number = abs(number)
    if number == 0:
        return sign
    exponent = max(exponent_of(number), 1 - fmt.bias)
    fraction = int(number / Fraction(2) ** (exponent - fmt.fraction))
    return sign | ((exponent + fmt.bias - 1) << fmt.fraction) + fraction


def rounded(number: Fraction, fmt: Format, mode: int, *, zero_negative: bool = False) -> Result:
    """Round an exact number; an exact zero takes the sign given."""
    if number == 0:
        return (fmt.sign if zero_negative else 0), 0
    sign = fmt.sign if number < 0 else 0
    exponent = exponent_of(number)
    free = to_precision(number, exponent - fmt.fraction, mode)  # as if exponents had no limit
    largest = value(fmt.infinity - 1, fmt)
    if abs(free) > largest:
        outward = mode in (RNE, RMM) or (mode == RUP and not sign) or (mode == RDN and sign)
        return sign | (fmt.infinity - (not outward)), OF | NX
    lowest = max(exponent, 1 - fmt.bias) - fmt.fraction
    result = to_precision(number, lowest, mode)
    flags = NX if result != number else 0
    if flags and abs(free) < fmt.smallest_normal:
        flags |= UF
    return encode(result, fmt) | sign, flags


def nan_flags(fmt: Format, *operands: int) -> Result | None:
    """Return the canonical NaN when an operand is a NaN."""
    if any(is_nan(x, fmt) for x in operands):
        return fmt.nan, NV if any(is_signalling(x, fmt) for x in operands) else 0
    return None


def fma(a: int, b: int, c: int, fmt: Format, mode: int) -> Result:
    """Return a * b + c."""
    sign = is_negative(a, fmt) != is_negative(b, fmt)
    zero_by_infinity = any(
        is_infinite(x, fmt) and not y & (fmt.sign - 1) for x, y in ((a, b), (b, a))
    )
    nan = nan_flags(fmt, a, b, c)
    if zero_by_infinity:
        return fmt.nan, NV
    if nan:
        return nan
    if is_infinite(a, fmt) or is_infinite(b, fmt):
        if is_infinite(c, fmt) and is_negative(c, fmt) != sign:
            return fmt.nan, NV
        return fmt.infinity | (fmt.sign if sign else 0), 0
    if is_infinite(c, fmt):
        return c, 0
    product = value(a, fmt) * value(b, fmt)
    addend = value(c, fmt)
    negative_zero = mode == RDN
    if product == 0 and addend == 0 and sign == is_negative(c, fmt):
        negative_zero = sign
    return rounded(product + addend, fmt, mode, zero_negative=negative_zero)


def add(a: int, b: int, fmt: Format, mode: int) -> Result:
    """Return a + b: 1 * a + b is the same sum."""
    return fma(encode(Fraction(1), fmt), a, b, fmt, mode)


def mul(a: int, b: int, fmt: Format, mode: int) -> Result:
    """Return a * b: adding a zero of the product's sign changes nothing."""
    return fma(a, b, (a ^ b) & fmt.sign, fmt, mode)


def div(a: int, b: int, fmt: Format, mode: int) -> Result:
    """Return a / b."""
    sign = (a ^ b) & fmt.sign
    nan = nan_flags(fmt, a, b)
    if nan:
        return nan
    if is_infinite(a, fmt):
        return (fmt.nan, NV) if is_infinite(b, fmt) else (sign | fmt.infinity, 0)
    if is_infinite(b, fmt):
        return sign, 0
    if value(b, fmt) == 0:
        return (fmt.nan, NV) if value(a, fmt) == 0 else (sign | fmt.infinity, DZ)
    return rounded(value(a, fmt) / value(b, fmt), fmt, mode, zero_negative=bool(sign))


def sqrt(a: int, fmt: Format, mode: int) -> Result:
    """Return the square root, from an integer root with 200 bits and one sticky bit."""
    nan = nan_flags(fmt, a)
    if nan:
        return nan
    if not a & (fmt.sign - 1):
        return a, 0
    if is_negative(a, fmt):
        return fmt.nan, NV
    if is_infinite(a, fmt):
        return a, 0
    scaled = value(a, fmt) * Fraction(2) ** 2400  # every double is a multiple of 2**-1074
    root = math.isqrt(int(scaled))
    exact = Fraction(root) + (Fraction(1, 2) if root * root != scaled else 0)
    return rounded(exact / Fraction(2) ** 1200, fmt, mode)


def resize(a: int, source: Format, target: Format, mode: int) -> Result:
    """Convert between formats."""
    nan = nan_flags(source, a)
    if nan:
        return target.nan, nan[1]
    sign = target.sign if is_negative(a, source) else 0
    if is_infinite(a, source):
        return sign | target.infinity, 0
    return rounded(value(a, source), target, mode, zero_negative=bool(sign))


def from_int(number: int, fmt: Format, mode: int) -> Result:
    """Convert an integer."""
    return rounded(Fraction(number), fmt, mode)


def to_int(a: int, fmt: Format, mode: int, low: int, high: int) -> Result:
    """Convert to an integer in low..high (saturating; invalid if it had to)."""
    if is_nan(a, fmt):
        return high, NV
    if is_infinite(a, fmt):
        return (low if is_negative(a, fmt) else high), NV
    number = value(a, fmt)
    result = round_integer(number, mode)
    if not low <= result <= high:
        return (low if result < low else high), NV
    return result, NX if result != number else 0


RELATIONS = ("feq", "flt", "fle")


def compare(name: str, a: int, b: int, fmt: Format) -> Result:
    """Return the truth (0 or 1) of a relation."""
    if is_nan(a, fmt) or is_nan(b, fmt):
        quiet = name == "feq" and not (is_signalling(a, fmt) or is_signalling(b, fmt))
        return 0, 0 if quiet else NV
    left, right = extended(a, fmt), extended(b, fmt)
    return int({"feq": left == right, "flt": left < right, "fle": left <= right}[name]), 0


def extended(bits: int, fmt: Format) -> Fraction:
    """Return the number, infinities as something larger than all others."""
    if is_infinite(bits, fmt):
        huge = Fraction(2) ** 2000
        return -huge if is_negative(bits, fmt) else huge
    return value(bits, fmt)


def extreme(a: int, b: int, fmt: Format, *, largest: bool) -> Result:
    """Return minimumNumber or maximumNumber of IEEE 754-2019."""
    flags = NV if is_signalling(a, fmt) or is_signalling(b, fmt) else 0
    numbers = [x for x in (a, b) if not is_nan(x, fmt)]
    if not numbers:
        return fmt.nan, flags
    order = sorted(numbers, key=lambda x: (extended(x, fmt), not is_negative(x, fmt)))
    return order[-1 if largest else 0], flags


def class_of(bits: int, fmt: Format) -> int:
    """Return the number of the bit that fclass sets."""
    if is_nan(bits, fmt):
        return 8 if is_signalling(bits, fmt) else 9
    magnitude = bits & (fmt.sign - 1)
    if magnitude == 0:
        kind = 3
    elif magnitude < 1 << fmt.fraction:
        kind = 2
    else:
        kind = 0 if magnitude == fmt.infinity else 1
    return kind if is_negative(bits, fmt) else 7 - kind
