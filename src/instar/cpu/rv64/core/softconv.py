"""Conversions between floating point and integers, in integers; see ``softfp`` for the terms.

Integer kinds are numbered as in the instructions: 0 w, 1 wu, 2 l, 3 lu; 32-bit results are sign-extended.

Source: own; RISC-V unprivileged ISA 20240411, 20.7 and 21.5.
"""

import cython
from cython import cast
from cython.cimports.instar.cpu.rv64.core.fp import *
from cython.cimports.instar.cpu.rv64.core.types import *


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def soft_resize(bits: u64, source: u32, target: u32, env: pFpEnv) -> u64:
    """Convert between single and double."""
    a: Unpacked = unpack(bits, source)
    if is_nan(a):
        return nan_result(a, a, target, env)
    if a.kind == KIND_INF:
        return pack_sign(a.sign, infinity(target), target)
    if a.kind == KIND_ZERO:
        return pack_sign(a.sign, 0, target)
    return round_pack(a.sign, a.exp, a.sig, target, env)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def soft_from_int(value: u64, kind: u32, fmt: u32, env: pFpEnv) -> u64:
    """Convert an integer register."""
    sign: u32 = 0
    shift: u32
    if kind < 2:
        value = value & (~cast(u64, 0) >> 32)
        if kind == 0 and (value >> 31) != 0:
            value |= ~cast(u64, 0) << 32
    if (kind & 1) == 0 and (value >> 63) != 0:
        sign = 1
        value = 0 - value
    if value == 0:
        return 0
    shift = clz64(value)
    return round_pack(sign, 63 - cast(i64, shift), value << shift, fmt, env)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def int_limit(sign: u32, kind: u32) -> u64:
    """Return the largest magnitude of that sign that an integer of that kind can hold."""
    limit: u64 = ~cast(u64, 0) >> (32 if kind < 2 else 0)
    if (kind & 1) != 0:
        return 0 if sign else limit
    return (limit >> 1) + sign


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def finish_int(sign: u32, magnitude: u64, kind: u32) -> u64:
    """Return the register value: negated if need be, 32-bit results sign-extended."""
    value: u64 = 0 - magnitude if sign else magnitude
    if kind < 2:
        value = value & (~cast(u64, 0) >> 32)
        if (value >> 31) != 0:
            value |= ~cast(u64, 0) << 32
    return value


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def soft_to_int(bits: u64, kind: u32, fmt: u32, env: pFpEnv) -> u64:
    """Convert to an integer register; out of range saturates and is invalid only."""
    a: Unpacked = unpack(bits, fmt)
    sign: u32 = 0 if is_nan(a) else a.sign
    whole: u64 = 0
    rest: u64 = 0
    fixed: u128
    if a.kind == KIND_ZERO:
        return 0
    if a.kind != KIND_NORMAL or a.exp > 63:
        env.flags |= NV
        return finish_int(sign, int_limit(sign, kind), kind)
    if a.exp < -1:
        rest = 1  # below one half: only that it is not zero matters
    else:
        fixed = (cast(u128, a.sig) << 64) >> (63 - a.exp)
        whole = cast(u64, fixed >> 64)
        rest = cast(u64, fixed)
    whole += rounds_up(env.rm, sign, whole & 1, rest, cast(u64, 1) << 63)
    if whole > int_limit(sign, kind):
        env.flags |= NV
        return finish_int(sign, int_limit(sign, kind), kind)
    if rest != 0:
        env.flags |= NX
    return finish_int(sign, whole, kind)
