"""IEEE 754 arithmetic in integers: every operation, rounding mode and flag, the same on every host.

A number is unpacked to sign, exponent and a 64-bit significand whose top bit is set (value = sig * 2**(exp - 63)),
computed on in at most 128 bits, and rounded once by ``round_pack``. What falls off the low end is kept as one sticky
bit ("jammed" into the lowest bit), which is enough to round correctly in all five modes.

``fmt`` is the instruction's field: 0 single, 1 double. Bit patterns are u64 for both; single ones are not boxed here.

Source: own; RISC-V unprivileged ISA 20240411, 20.2-20.3 (modes, flags, tininess after rounding, canonical NaN).
"""

import cython
from cython import cast
from cython.cimports.instar.cpu.rv64.core.fp import *
from cython.cimports.instar.cpu.rv64.core.types import *


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def mantissa_bits(fmt: u32) -> u32:
    return 52 if fmt else 23


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def exponent_max(fmt: u32) -> u64:
    return 2047 if fmt else 255


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def exponent_bias(fmt: u32) -> i64:
    return 1023 if fmt else 127


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def sign_bit(fmt: u32) -> u64:
    return cast(u64, 1) << (63 if fmt else 31)


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def infinity(fmt: u32) -> u64:
    return exponent_max(fmt) << mantissa_bits(fmt)


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def canonical_nan(fmt: u32) -> u64:
    return cast(u64, 0x7FF8) << 48 if fmt else cast(u64, 0x7FC00000)


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def pack_sign(sign: u32, bits: u64, fmt: u32) -> u64:
    return bits | sign_bit(fmt) if sign else bits


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def invalid(fmt: u32, env: pFpEnv) -> u64:
    env.flags |= NV
    return canonical_nan(fmt)


# ---------------------------------------------------------------- unpacking


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def unpack(bits: u64, fmt: u32) -> Unpacked:
    """Take a bit pattern apart; subnormals come out normalised."""
    out: Unpacked
    m: u32 = mantissa_bits(fmt)
    fraction: u64 = bits & ((cast(u64, 1) << m) - 1)
    exponent: u64 = (bits >> m) & exponent_max(fmt)
    shift: u32
    out.sign = 1 if bits & sign_bit(fmt) else 0
    out.exp = 0
    out.sig = 0
    if exponent == exponent_max(fmt):
        if fraction == 0:
            out.kind = KIND_INF
        else:
            out.kind = KIND_QNAN if (fraction >> (m - 1)) & 1 else KIND_SNAN
    elif exponent != 0:
        out.kind = KIND_NORMAL
        out.exp = cast(i64, exponent) - exponent_bias(fmt)
        out.sig = (fraction | (cast(u64, 1) << m)) << (63 - m)
    elif fraction == 0:
        out.kind = KIND_ZERO
    else:
        shift = clz64(fraction)
        out.kind = KIND_NORMAL
        out.sig = fraction << shift
        out.exp = 1 - exponent_bias(fmt) - cast(i64, shift) + cast(i64, 63 - m)
    return out


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def is_nan(number: Unpacked) -> cython.bint:
    return number.kind >= KIND_QNAN


# ---------------------------------------------------------------- rounding


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def rounds_up(rm: u32, sign: u32, odd: u64, rest: u64, half: u64) -> u64:
    """Say (0 or 1) whether the magnitude grows by one unit; ``rest`` is what is cut off, ``half`` half a unit."""
    if rm == RNE:
        return 1 if rest > half or (rest == half and odd != 0) else 0
    if rm == RMM:
        return 1 if rest >= half else 0
    if rm == RDN:
        return 1 if sign != 0 and rest != 0 else 0
    if rm == RUP:
        return 1 if sign == 0 and rest != 0 else 0
    return 0  # RTZ


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def shift_right_jam(value: u64, count: i64) -> u64:
    """Shift right (count >= 0); any one bit that falls off is kept as the lowest bit."""
    if count == 0:
        return value
    if count >= 64:
        return 1 if value != 0 else 0
    return (value >> count) | (1 if value << (64 - count) else 0)


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def shift_right_jam128(value: u128, count: i64) -> u128:
    """Shift right (count >= 0) with the bits that fall off kept as the lowest bit."""
    if count == 0:
        return value
    if count >= 128:
        return cast(u128, 1 if value != 0 else 0)
    return (value >> count) | cast(u128, 1 if value << (128 - count) else 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def overflow(sign: u32, fmt: u32, env: pFpEnv) -> u64:
    """Return infinity or the largest finite number, as the rounding mode says."""
    to_infinity: cython.bint = env.rm == RNE or env.rm == RMM
    env.flags |= OF | NX
    if (env.rm == RUP and sign == 0) or (env.rm == RDN and sign != 0):
        to_infinity = True
    return pack_sign(sign, infinity(fmt) if to_infinity else infinity(fmt) - 1, fmt)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def round_pack(sign: u32, exp: i64, sig: u64, fmt: u32, env: pFpEnv) -> u64:
    """Round (sig's top bit is set, its lowest may be sticky) and put the bit pattern together; sets NX, UF, OF."""
    m: u32 = mantissa_bits(fmt)
    drop: u32 = 63 - m
    half: u64 = cast(u64, 1) << (drop - 1)
    mask: u64 = (cast(u64, 1) << drop) - 1
    biased: i64 = exp + exponent_bias(fmt)
    rest: u64 = sig & mask
    mantissa: u64 = sig >> drop
    tiny: cython.bint = False
    if biased >= cast(i64, exponent_max(fmt)):
        return overflow(sign, fmt, env)
    if biased < 1:
        # Tiny after rounding: rounded as if the exponent had no limit, it still lies below the smallest normal number.
        mantissa += rounds_up(env.rm, sign, mantissa & 1, rest, half)
        tiny = biased < 0 or (mantissa >> (m + 1)) == 0
        sig = shift_right_jam(sig, 1 - biased)
        rest = sig & mask
        mantissa = sig >> drop
        biased = 1
    mantissa += rounds_up(env.rm, sign, mantissa & 1, rest, half)
    # The hidden bit (absent in a subnormal) adds one to the exponent field; so does a carry out of the mantissa.
    mantissa += cast(u64, biased - 1) << m
    if mantissa >= infinity(fmt):
        return overflow(sign, fmt, env)
    if rest != 0:
        env.flags |= NX | UF if tiny else NX
    return pack_sign(sign, mantissa, fmt)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def round_pack128(sign: u32, exp: i64, sig: u128, fmt: u32, env: pFpEnv) -> u64:
    """Normalise (value = sig * 2**(exp - 126), sig not 0) and round."""
    high: u64 = cast(u64, sig >> 64)
    shift: u32 = clz64(high) if high != 0 else 64 + clz64(cast(u64, sig))
    sig = sig << shift
    high = cast(u64, sig >> 64)
    if cast(u64, sig) != 0:
        high |= 1
    return round_pack(sign, exp + 1 - cast(i64, shift), high, fmt, env)


# ---------------------------------------------------------------- arithmetic


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def nan_result(a: Unpacked, b: Unpacked, fmt: u32, env: pFpEnv) -> u64:
    """Return the canonical NaN (one operand is a NaN); a signalling one is invalid."""
    if a.kind == KIND_SNAN or b.kind == KIND_SNAN:
        env.flags |= NV
    return canonical_nan(fmt)


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def zero_sum_sign(a: u32, b: u32, env: pFpEnv) -> u32:
    """Return the sign of an exact zero sum of operands with signs a and b."""
    return a if a == b else (1 if env.rm == RDN else 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def add_magnitudes(
    sign_a: u32, exp_a: i64, a: u128, sign_b: u32, exp_b: i64, b: u128, fmt: u32, env: pFpEnv
) -> u64:
    """Add two nonzero signed numbers (value = sig * 2**(exp - 126), sig below 2**127) and round once.

    Both significands have 20 or more zero bits at the bottom, so a shift that loses bits makes the operands so unequal
    that the difference keeps at least 100 bits: the sticky bit then stands far below the rounding position.
    """
    if exp_a < exp_b:
        b, a = a, b
        exp_a, exp_b = exp_b, exp_a
        sign_a, sign_b = sign_b, sign_a
    b = shift_right_jam128(b, exp_a - exp_b)
    if sign_a == sign_b:
        return round_pack128(sign_a, exp_a, a + b, fmt, env)
    if a == b:
        return pack_sign(zero_sum_sign(sign_a, sign_b, env), 0, fmt)
    if a < b:
        return round_pack128(sign_b, exp_a, b - a, fmt, env)
    return round_pack128(sign_a, exp_a, a - b, fmt, env)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def soft_add(bits_a: u64, bits_b: u64, fmt: u32, env: pFpEnv) -> u64:
    a: Unpacked = unpack(bits_a, fmt)
    b: Unpacked = unpack(bits_b, fmt)
    if is_nan(a) or is_nan(b):
        return nan_result(a, b, fmt, env)
    if a.kind == KIND_INF:
        if b.kind == KIND_INF and a.sign != b.sign:
            return invalid(fmt, env)
        return bits_a
    if b.kind == KIND_INF or a.kind == KIND_ZERO:
        if b.kind == KIND_ZERO:
            return pack_sign(zero_sum_sign(a.sign, b.sign, env), 0, fmt)
        return bits_b
    if b.kind == KIND_ZERO:
        return bits_a
    return add_magnitudes(
        a.sign, a.exp, cast(u128, a.sig) << 63, b.sign, b.exp, cast(u128, b.sig) << 63, fmt, env
    )


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def soft_mul(bits_a: u64, bits_b: u64, fmt: u32, env: pFpEnv) -> u64:
    a: Unpacked = unpack(bits_a, fmt)
    b: Unpacked = unpack(bits_b, fmt)
    sign: u32 = a.sign ^ b.sign
    if is_nan(a) or is_nan(b):
        return nan_result(a, b, fmt, env)
    if a.kind == KIND_INF or b.kind == KIND_INF:
        if a.kind == KIND_ZERO or b.kind == KIND_ZERO:
            return invalid(fmt, env)
        return pack_sign(sign, infinity(fmt), fmt)
    if a.kind == KIND_ZERO or b.kind == KIND_ZERO:
        return pack_sign(sign, 0, fmt)
    return round_pack128(sign, a.exp + b.exp, cast(u128, a.sig) * cast(u128, b.sig), fmt, env)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def soft_fma(bits_a: u64, bits_b: u64, bits_c: u64, fmt: u32, env: pFpEnv) -> u64:
    """Return a * b + c, rounded once."""
    a: Unpacked = unpack(bits_a, fmt)
    b: Unpacked = unpack(bits_b, fmt)
    c: Unpacked = unpack(bits_c, fmt)
    sign: u32 = a.sign ^ b.sign
    no_product: cython.bint = (a.kind == KIND_INF and b.kind == KIND_ZERO) or (
        a.kind == KIND_ZERO and b.kind == KIND_INF
    )
    if is_nan(a) or is_nan(b) or is_nan(c):
        # 20.6: infinity times zero is invalid even when the addend is a quiet NaN.
        if c.kind == KIND_SNAN or no_product:
            env.flags |= NV
        return nan_result(a, b, fmt, env)
    if no_product:
        return invalid(fmt, env)
    if a.kind == KIND_INF or b.kind == KIND_INF:
        if c.kind == KIND_INF and c.sign != sign:
            return invalid(fmt, env)
        return pack_sign(sign, infinity(fmt), fmt)
    if a.kind == KIND_ZERO or b.kind == KIND_ZERO:
        if c.kind == KIND_ZERO:
            return pack_sign(zero_sum_sign(sign, c.sign, env), 0, fmt)
        return bits_c
    if c.kind == KIND_INF:
        return bits_c
    return fma_finite(a, b, c, fmt, env)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fma_finite(a: Unpacked, b: Unpacked, c: Unpacked, fmt: u32, env: pFpEnv) -> u64:
    """Return a * b + c for finite a, b (nonzero) and c."""
    sign: u32 = a.sign ^ b.sign
    product: u128 = cast(u128, a.sig) * cast(u128, b.sig)
    if c.kind == KIND_ZERO:
        return round_pack128(sign, a.exp + b.exp, product, fmt, env)
    # The product may have bit 127 set: one place down, its low bits are zero.
    return add_magnitudes(
        sign, a.exp + b.exp + 1, product >> 1, c.sign, c.exp, cast(u128, c.sig) << 63, fmt, env
    )


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def soft_div(bits_a: u64, bits_b: u64, fmt: u32, env: pFpEnv) -> u64:
    a: Unpacked = unpack(bits_a, fmt)
    b: Unpacked = unpack(bits_b, fmt)
    sign: u32 = a.sign ^ b.sign
    exp: i64 = a.exp - b.exp
    numerator: u128
    quotient: u64
    if is_nan(a) or is_nan(b):
        return nan_result(a, b, fmt, env)
    if a.kind == b.kind and a.kind != KIND_NORMAL:  # 0 / 0, infinity / infinity
        return invalid(fmt, env)
    if a.kind == KIND_INF:
        return pack_sign(sign, infinity(fmt), fmt)
    if a.kind == KIND_ZERO or b.kind == KIND_INF:
        return pack_sign(sign, 0, fmt)
    if b.kind == KIND_ZERO:
        env.flags |= DZ
        return pack_sign(sign, infinity(fmt), fmt)
    numerator = cast(u128, a.sig) << 63
    if a.sig < b.sig:
        numerator = numerator << 1
        exp -= 1
    quotient = cast(u64, numerator // cast(u128, b.sig))
    if cast(u128, quotient) * cast(u128, b.sig) != numerator:
        quotient |= 1
    return round_pack(sign, exp, quotient, fmt, env)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def soft_sqrt(bits: u64, fmt: u32, env: pFpEnv) -> u64:
    a: Unpacked = unpack(bits, fmt)
    odd: i64 = a.exp & 1
    square: u128 = cast(u128, a.sig) << (63 + odd)
    root: u64 = 0
    bit: u64 = cast(u64, 1) << 63
    trial: u64
    if is_nan(a):
        return nan_result(a, a, fmt, env)
    if a.kind == KIND_ZERO:
        return bits
    if a.sign != 0:
        return invalid(fmt, env)
    if a.kind == KIND_INF:
        return bits
    while bit != 0:
        trial = root | bit
        if cast(u128, trial) * cast(u128, trial) <= square:
            root = trial
        bit = bit >> 1
    if cast(u128, root) * cast(u128, root) != square:
        root |= 1
    return round_pack(0, (a.exp - odd) >> 1, root, fmt, env)
