"""Instructions of F and D: operands, NaN boxes, rounding modes, flags; the arithmetic itself is in ``softfp``.

The host's FPU is used only where it cannot differ: rounding to nearest even, NX already raised (it is sticky), and a
result that is a normal number, so that NX is the only flag there can be. No host rounding mode or flag is touched.

Source: own; RISC-V unprivileged ISA 20240411, chapters 20 (F) and 21 (D). QEMU uses the host FPU by the same rule.
"""

import cython
from cython import cast
from cython.cimports.instar.cpu.rv64.core.fp import *
from cython.cimports.instar.cpu.rv64.core.types import *

# ---------------------------------------------------------------- registers


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def read_f(c: pCpu, index: u32, fmt: u32) -> u64:
    """Return the bit pattern; a single that is not NaN-boxed reads as the canonical NaN (21.2)."""
    value: u64 = c.f[index]
    if fmt != 0:
        return value
    if (value >> 32) != (~cast(u64, 0) >> 32):
        return canonical_nan(0)
    return value & (~cast(u64, 0) >> 32)


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def write_f(c: pCpu, w: u32, fmt: u32, bits: u64) -> cython.void:
    """Write the register that field rd names, boxing singles."""
    c.f[(w >> 7) & 31] = bits if fmt != 0 else bits | (~cast(u64, 0) << 32)


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def write_x(c: pCpu, w: u32, value: u64) -> cython.void:
    """Write the integer register that field rd names."""
    if (w >> 7) & 31:
        c.x[(w >> 7) & 31] = value


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def field_fmt(w: u32) -> u32:
    return (w >> 25) & 1


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def field_rs1(w: u32) -> u32:
    return (w >> 15) & 31


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def field_rs2(w: u32) -> u32:
    return (w >> 20) & 31


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def rounding_mode(c: pCpu, w: u32) -> u32:
    """Return the mode of the instruction or, if it says so, of frm; above 4 it is reserved (20.2)."""
    rm: u32 = (w >> 12) & 7
    return cast(u32, c.frm) if rm == 7 else rm


# ---------------------------------------------------------------- the host's FPU


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def as_double(bits: u64) -> cython.double:
    value: u64 = bits
    return cast(P_f64, cython.address(value))[0]


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def as_single(bits: u64) -> cython.float:
    value: u32 = cast(u32, bits)
    return cast(P_f32, cython.address(value))[0]


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def keep_double(value: cython.double, bits: P_u64) -> cython.bint:
    """Store a host result and say that it may be used: normal and finite, or the flags need the integer path."""
    magnitude: cython.double = fabs(value)
    result: cython.double = value
    bits[0] = cast(P_u64, cython.address(result))[0]
    return DBL_MIN < magnitude and magnitude <= DBL_MAX


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def keep_single(value: cython.float, bits: P_u64) -> cython.bint:
    """As ``keep_double``."""
    magnitude: cython.float = fabsf(value)
    result: cython.float = value
    bits[0] = cast(P_u32, cython.address(result))[0]
    return FLT_MIN < magnitude and magnitude <= FLT_MAX


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def host_double(function: u32, bits_a: u64, bits_b: u64, result: P_u64) -> cython.bint:
    """Try add, sub, mul, div, sqrt (by funct5) on the host."""
    a: cython.double = as_double(bits_a)
    b: cython.double = as_double(bits_b)
    if function == FUNCT_ADD:
        return keep_double(a + b, result)
    if function == FUNCT_SUB:
        return keep_double(a - b, result)
    if function == FUNCT_MUL:
        return keep_double(a * b, result)
    if function == FUNCT_DIV:
        return keep_double(a / b, result)
    return keep_double(sqrt(a), result)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def host_single(function: u32, bits_a: u64, bits_b: u64, result: P_u64) -> cython.bint:
    """As ``host_double``."""
    a: cython.float = as_single(bits_a)
    b: cython.float = as_single(bits_b)
    if function == FUNCT_ADD:
        return keep_single(a + b, result)
    if function == FUNCT_SUB:
        return keep_single(a - b, result)
    if function == FUNCT_MUL:
        return keep_single(a * b, result)
    if function == FUNCT_DIV:
        return keep_single(a / b, result)
    return keep_single(sqrtf(a), result)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def host_fma(fmt: u32, a: u64, b: u64, addend: u64, result: P_u64) -> cython.bint:
    """Try a * b + addend on the host."""
    if fmt != 0:
        return keep_double(fma(as_double(a), as_double(b), as_double(addend)), result)
    return keep_single(fmaf(as_single(a), as_single(b), as_single(addend)), result)


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def host_allowed(c: pCpu, env: pFpEnv) -> cython.bint:
    return env.rm == RNE and (c.fflags & NX) != 0


# ---------------------------------------------------------------- arithmetic


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def soft_arithmetic(function: u32, a: u64, b: u64, fmt: u32, env: pFpEnv) -> u64:
    """Add, sub, mul, div or sqrt (by funct5) in integers."""
    if function == FUNCT_ADD:
        return soft_add(a, b, fmt, env)
    if function == FUNCT_SUB:
        return soft_add(a, b ^ sign_bit(fmt), fmt, env)
    if function == FUNCT_MUL:
        return soft_mul(a, b, fmt, env)
    if function == FUNCT_DIV:
        return soft_div(a, b, fmt, env)
    return soft_sqrt(a, fmt, env)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fp_arithmetic(c: pCpu, w: u32, env: pFpEnv) -> cython.int:
    """Execute fadd, fsub, fmul, fdiv, fsqrt."""
    fmt: u32 = field_fmt(w)
    function: u32 = w >> 27
    a: u64 = read_f(c, field_rs1(w), fmt)
    b: u64 = read_f(c, field_rs2(w), fmt)
    result: u64 = 0
    done: cython.bint = False
    if env.rm > RMM:
        return 1
    if host_allowed(c, env):
        if fmt != 0:
            done = host_double(function, a, b, cython.address(result))
        else:
            done = host_single(function, a, b, cython.address(result))
    if not done:
        result = soft_arithmetic(function, a, b, fmt, env)
    write_f(c, w, fmt, result)
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fp_fused(c: pCpu, w: u32, env: pFpEnv) -> cython.int:
    """Execute fmadd, fmsub, fnmsub, fnmadd."""
    fmt: u32 = field_fmt(w)
    opcode: u32 = (w >> 2) & 31
    a: u64 = read_f(c, field_rs1(w), fmt)
    b: u64 = read_f(c, field_rs2(w), fmt)
    addend: u64 = read_f(c, w >> 27, fmt)
    result: u64 = 0
    if env.rm > RMM:
        return 1
    # Signs are changed beforehand: on a NaN that does not show.
    if opcode == OPCODE_NMSUB or opcode == OPCODE_NMADD:
        a = a ^ sign_bit(fmt)
    if opcode == OPCODE_MSUB or opcode == OPCODE_NMADD:
        addend = addend ^ sign_bit(fmt)
    if not (host_allowed(c, env) and host_fma(fmt, a, b, addend, cython.address(result))):
        result = soft_fma(a, b, addend, fmt, env)
    write_f(c, w, fmt, result)
    return 0


# ---------------------------------------------------------------- signs, order, class


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fp_sign(c: pCpu, w: u32, env: pFpEnv) -> cython.int:
    """Execute fsgnj, fsgnjn, fsgnjx."""
    fmt: u32 = field_fmt(w)
    a: u64 = read_f(c, field_rs1(w), fmt)
    sign: u64 = read_f(c, field_rs2(w), fmt)
    variant: u32 = (w >> 12) & 7
    if variant == 1:
        sign = ~sign
    elif variant == 2:
        sign = sign ^ a
    elif variant != 0:
        return 1
    write_f(c, w, fmt, (a & (sign_bit(fmt) - 1)) | (sign & sign_bit(fmt)))
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def below(a: u64, b: u64, fmt: u32) -> cython.bint:
    """Say whether a comes before b, neither a NaN; -0 comes before +0."""
    sign: u64 = sign_bit(fmt)
    if ((a ^ b) & sign) != 0:
        return (a & sign) != 0
    return a > b if (a & sign) != 0 else a < b


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def nan_bits(bits: u64, fmt: u32) -> cython.bint:
    return (bits & (sign_bit(fmt) - 1)) > infinity(fmt)


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def signalling_bits(bits: u64, fmt: u32) -> cython.bint:
    return nan_bits(bits, fmt) and ((bits >> (mantissa_bits(fmt) - 1)) & 1) == 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def smaller_or_larger(a: u64, b: u64, fmt: u32, larger: u32, env: pFpEnv) -> u64:
    """Return the minimum or maximum; a NaN gives way to a number."""
    if signalling_bits(a, fmt) or signalling_bits(b, fmt):
        env.flags |= NV
    if nan_bits(a, fmt):
        return canonical_nan(fmt) if nan_bits(b, fmt) else b
    if nan_bits(b, fmt):
        return a
    return b if below(a, b, fmt) == (larger != 0) else a


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fp_minmax(c: pCpu, w: u32, env: pFpEnv) -> cython.int:
    """Execute fmin, fmax."""
    fmt: u32 = field_fmt(w)
    larger: u32 = (w >> 12) & 7
    if larger > 1:
        return 1
    write_f(
        c,
        w,
        fmt,
        smaller_or_larger(
            read_f(c, field_rs1(w), fmt), read_f(c, field_rs2(w), fmt), fmt, larger, env
        ),
    )
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fp_compare(c: pCpu, w: u32, env: pFpEnv) -> cython.int:
    """Execute feq (quiet), flt, fle (signalling: any NaN is invalid)."""
    fmt: u32 = field_fmt(w)
    relation: u32 = (w >> 12) & 7  # 0 le, 1 lt, 2 eq
    a: u64 = read_f(c, field_rs1(w), fmt)
    b: u64 = read_f(c, field_rs2(w), fmt)
    zeros: cython.bint = ((a | b) & (sign_bit(fmt) - 1)) == 0
    if relation > 2:
        return 1
    if nan_bits(a, fmt) or nan_bits(b, fmt):
        if relation != 2 or signalling_bits(a, fmt) or signalling_bits(b, fmt):
            env.flags |= NV
        write_x(c, w, 0)
    elif a == b or zeros:
        write_x(c, w, 0 if relation == 1 else 1)
    else:
        write_x(c, w, 1 if relation != 2 and below(a, b, fmt) else 0)
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def class_bit(bits: u64, fmt: u32) -> u32:
    """Return the bit of fclass (20.9)."""
    a: Unpacked = unpack(bits, fmt)
    if a.kind == KIND_SNAN:
        return 8
    if a.kind == KIND_QNAN:
        return 9
    if a.kind == KIND_INF:
        return 0 if a.sign else 7
    if a.kind == KIND_ZERO:
        return 3 if a.sign else 4
    if a.exp < 1 - exponent_bias(fmt):
        return 2 if a.sign else 5
    return 1 if a.sign else 6


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fp_move_out(c: pCpu, w: u32, env: pFpEnv) -> cython.int:
    """Execute fmv.x.w and fmv.x.d (the register's bits, boxed or not) and fclass."""
    fmt: u32 = field_fmt(w)
    variant: u32 = (w >> 12) & 7
    bits: u64 = c.f[field_rs1(w)]
    if variant == 1:
        write_x(c, w, cast(u64, 1) << class_bit(read_f(c, field_rs1(w), fmt), fmt))
    elif variant == 0:
        write_x(c, w, bits if fmt != 0 else cast(u64, cast(i64, cast(i32, bits))))
    else:
        return 1
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fp_move_in(c: pCpu, w: u32, env: pFpEnv) -> cython.int:
    """Execute fmv.w.x and fmv.d.x."""
    write_f(c, w, field_fmt(w), c.x[field_rs1(w)])
    return 0


# ---------------------------------------------------------------- conversions


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fp_resize(c: pCpu, w: u32, env: pFpEnv) -> cython.int:
    """Execute fcvt.s.d and fcvt.d.s; the source's format is in field rs2."""
    fmt: u32 = field_fmt(w)
    source: u32 = field_rs2(w)
    if env.rm > RMM or source != 1 - fmt:
        return 1
    write_f(c, w, fmt, soft_resize(read_f(c, field_rs1(w), source), source, fmt, env))
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fp_to_int(c: pCpu, w: u32, env: pFpEnv) -> cython.int:
    """Execute fcvt.{w,wu,l,lu}.{s,d}."""
    fmt: u32 = field_fmt(w)
    if env.rm > RMM or field_rs2(w) > 3:
        return 1
    write_x(c, w, soft_to_int(read_f(c, field_rs1(w), fmt), field_rs2(w), fmt, env))
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fp_from_int(c: pCpu, w: u32, env: pFpEnv) -> cython.int:
    """Execute fcvt.{s,d}.{w,wu,l,lu}."""
    fmt: u32 = field_fmt(w)
    if env.rm > RMM or field_rs2(w) > 3:
        return 1
    write_f(c, w, fmt, soft_from_int(c.x[field_rs1(w)], field_rs2(w), fmt, env))
    return 0


# ---------------------------------------------------------------- dispatch


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fp_compute(c: pCpu, w: u32, env: pFpEnv) -> cython.int:
    """Execute an instruction of opcode OP-FP by its funct5."""
    function: u32 = w >> 27
    if function <= FUNCT_DIV or function == FUNCT_SQRT:
        return fp_arithmetic(c, w, env)
    if function == FUNCT_SIGN:
        return fp_sign(c, w, env)
    if function == FUNCT_MINMAX:
        return fp_minmax(c, w, env)
    if function == FUNCT_RESIZE:
        return fp_resize(c, w, env)
    if function == FUNCT_COMPARE:
        return fp_compare(c, w, env)
    if function == FUNCT_TO_INT:
        return fp_to_int(c, w, env)
    if function == FUNCT_FROM_INT:
        return fp_from_int(c, w, env)
    if function == FUNCT_MOVE_OUT:
        return fp_move_out(c, w, env)
    return fp_move_in(c, w, env) if function == FUNCT_MOVE_IN else 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fp_exec(c: pCpu, w: u32) -> cython.int:
    """Execute one computational instruction of F or D; 0 done, 1 illegal and nothing changed."""
    env: FpEnv
    status: cython.int
    # Off; or a format that is neither single nor double.
    if (c.mstatus & MSTATUS_FS) == 0 or ((w >> 26) & 1) != 0:
        return 1
    env.rm = rounding_mode(c, w)
    env.flags = 0
    if ((w >> 2) & 31) == OPCODE_FP:
        status = fp_compute(c, w, cython.address(env))
    else:
        status = fp_fused(c, w, cython.address(env))
    if status == 0:
        c.fflags |= env.flags
        c.mstatus |= MSTATUS_FS
    return status
