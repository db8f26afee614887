"""Floating point: executed from the instruction word."""

import cython
from cython import cast
from cython.cimports.instar.cpu.rv64.core.types import *
from cython.cimports.instar.cpu.rv64.core.fp import *


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def b2d(v: u64) -> cython.double:
    t: u64 = v
    return cast(P_f64, cython.address(t))[0]
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def d2b(v: cython.double) -> u64:
    t: cython.double = v
    return cast(P_u64, cython.address(t))[0]
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def b2f(v: u32) -> cython.float:
    t: u32 = v
    return cast(P_f32, cython.address(t))[0]
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def f2b(v: cython.float) -> u32:
    t: cython.float = v
    return cast(P_u32, cython.address(t))[0]
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def unbox(v: u64) -> u32:
    if (v >> 32) == 0xffffffff: return cast(u32, v)
    return 0x7fc00000
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def get_fe() -> u64:
    e: cython.int = fetestexcept(FE_ALL_EXCEPT)
    r: u64 = 0
    if e:
        if e & FE_INVALID: r |= 16
        if e & FE_DIVBYZERO: r |= 8
        if e & FE_OVERFLOW: r |= 4
        if e & FE_UNDERFLOW: r |= 2
        if e & FE_INEXACT: r |= 1
    return r
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def cvt_rm(v: cython.double, rm: u32) -> cython.double:
    if rm == 1: return trunc(v)
    if rm == 2: return floor(v)
    if rm == 3: return ceil(v)
    if rm == 4: return round(v)
    return rint(v)
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def cvt_int(c: pCpu, v: cython.double, k: u32, rm: u32) -> u64:
    r: cython.double
    two63: cython.double = 9223372036854775808.0
    if v != v:
        c.fflags |= 16
        if k == 0: return 0x7fffffff
        if k == 1: return ~cast(u64, 0)
        if k == 2: return ~cast(u64, 0) >> 1
        return ~cast(u64, 0)
    r = cvt_rm(v, rm)
    if k == 0:
        if r > 2147483647.0: c.fflags |= 16; return 0x7fffffff
        if r < -2147483648.0: c.fflags |= 16; return ~cast(u64, 0x7fffffff)
        if r != v: c.fflags |= 1
        return cast(u64, cast(i64, cast(i32, r)))
    if k == 1:
        if r > 4294967295.0: c.fflags |= 16; return ~cast(u64, 0)
        if r < 0.0: c.fflags |= 16; return 0
        if r != v: c.fflags |= 1
        return cast(u64, cast(i64, cast(i32, cast(u32, r))))
    if k == 2:
        if r >= two63: c.fflags |= 16; return ~cast(u64, 0) >> 1
        if r < -two63: c.fflags |= 16; return cast(u64, 1) << 63
        if r != v: c.fflags |= 1
        return cast(u64, cast(i64, r))
    if r >= two63 * 2.0: c.fflags |= 16; return ~cast(u64, 0)
    if r < 0.0: c.fflags |= 16; return 0
    if r != v: c.fflags |= 1
    return cast(u64, r)
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fclass(sign: u64, e: u64, emax: u64, m: u64, q: u64) -> u64:
    if e == emax:
        if m == 0: return 1 if sign else 128
        return 512 if m & q else 256
    if e == 0:
        if m == 0: return 8 if sign else 16
        return 4 if sign else 32
    return 2 if sign else 64

@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fp_exec(c: pCpu, w: u32) -> cython.int:
    opc: u32 = (w >> 2) & 31
    rd: u32 = (w >> 7) & 31
    rm: u32 = (w >> 12) & 7
    rs1: u32 = (w >> 15) & 31
    rs2: u32 = (w >> 20) & 31
    rs3: u32 = w >> 27
    fmt: u32 = (w >> 25) & 3
    f5: u32 = w >> 27
    host: cython.int = 0
    d: cython.double
    a: cython.double
    b: cython.double
    e: cython.double
    fa: cython.float
    fb: cython.float
    fe: cython.float
    fr: cython.float
    ua: u64
    ub: u64
    k: u32
    lt: cython.bint
    eq: cython.bint
    nan: cython.bint
    if (c.mstatus & 0x6000) == 0: return 1
    if fmt > 1: return 1
    c.mstatus |= 0x6000
    if opc != 20 or f5 <= 3 or f5 == 11 or f5 == 8 or f5 == 24 or f5 == 26:
        if rm == 7: rm = cast(u32, c.frm)
        if rm > 4: return 1
        if rm == 1: host = FE_TOWARDZERO
        elif rm == 2: host = FE_DOWNWARD
        elif rm == 3: host = FE_UPWARD
        else: host = FE_TONEAREST
        if host != FE_TONEAREST: fesetround(host)
        feclearexcept(FE_ALL_EXCEPT)
    if opc != 20 or f5 <= 3 or f5 == 11:
        if fmt == 1:
            a = b2d(c.f[rs1]); b = b2d(c.f[rs2])
            if opc == 16: d = fma(a, b, b2d(c.f[rs3]))
            elif opc == 17: d = fma(a, b, -b2d(c.f[rs3]))
            elif opc == 18: d = fma(-a, b, b2d(c.f[rs3]))
            elif opc == 19: d = fma(-a, b, -b2d(c.f[rs3]))
            elif f5 == 0: d = h_addd(a, b)
            elif f5 == 1: d = h_subd(a, b)
            elif f5 == 2: d = h_muld(a, b)
            elif f5 == 3: d = h_divd(a, b)
            else: d = sqrt(a)
            c.fflags |= get_fe()
            if d != d: c.f[rd] = cast(u64, 0x7ff8) << 48
            else: c.f[rd] = d2b(d)
        else:
            fa = b2f(unbox(c.f[rs1])); fb = b2f(unbox(c.f[rs2]))
            if opc == 16: fr = fmaf(fa, fb, b2f(unbox(c.f[rs3])))
            elif opc == 17: fr = fmaf(fa, fb, -b2f(unbox(c.f[rs3])))
            elif opc == 18: fr = fmaf(-fa, fb, b2f(unbox(c.f[rs3])))
            elif opc == 19: fr = fmaf(-fa, fb, -b2f(unbox(c.f[rs3])))
            elif f5 == 0: fr = h_adds(fa, fb)
            elif f5 == 1: fr = h_subs(fa, fb)
            elif f5 == 2: fr = h_muls(fa, fb)
            elif f5 == 3: fr = h_divs(fa, fb)
            else: fr = sqrtf(fa)
            c.fflags |= get_fe()
            k = 0x7fc00000 if fr != fr else f2b(fr)
            c.f[rd] = (~cast(u64, 0) << 32) | k
    elif f5 == 4:
        if fmt == 1:
            ua = c.f[rs1]; ub = c.f[rs2]
            if rm == 1: ub = ~ub
            elif rm == 2: ub = ub ^ ua
            elif rm != 0: return 1
            c.f[rd] = (ua & (~cast(u64, 0) >> 1)) | (ub & (cast(u64, 1) << 63))
        else:
            ua = unbox(c.f[rs1]); ub = unbox(c.f[rs2])
            if rm == 1: ub = ~ub
            elif rm == 2: ub = ub ^ ua
            elif rm != 0: return 1
            c.f[rd] = (ua & 0x7fffffff) | (ub & cast(u64, 0x80000000)) | (~cast(u64, 0) << 32)
    elif f5 == 5 or f5 == 20:
        # min/max and compares
        if fmt == 1:
            ua = c.f[rs1]; ub = c.f[rs2]
            a = b2d(ua); b = b2d(ub)
        else:
            ua = unbox(c.f[rs1]); ub = unbox(c.f[rs2])
            fa = b2f(cast(u32, ua)); fb = b2f(cast(u32, ub))
            a = fa; b = fb
        nan = (a != a) or (b != b)
        if nan:
            if is_snan(ua, fmt) or is_snan(ub, fmt): c.fflags |= 16
            elif f5 == 20 and rm != 2: c.fflags |= 16
        if f5 == 20:
            if rm > 2: return 1
            if nan: eq = False
            elif rm == 2: eq = a == b
            elif rm == 1: eq = a < b
            else: eq = a <= b
            if rd: c.x[rd] = 1 if eq else 0
        else:
            if rm > 1: return 1
            if a != a and b != b:
                c.f[rd] = cast(u64, 0x7ff8) << 48 if fmt == 1 else (~cast(u64, 0) << 32) | 0x7fc00000
            else:
                if a != a: lt = False
                elif b != b: lt = True
                else:
                    if a == b: lt = (ua >> (63 if fmt == 1 else 31)) > (ub >> (63 if fmt == 1 else 31))
                    else: lt = a < b
                    if rm == 1: lt = not lt
                c.f[rd] = (ua if lt else ub) | (0 if fmt == 1 else ~cast(u64, 0) << 32)
    elif f5 == 8:
        if fmt == 0 and rs2 == 1:
            a = b2d(c.f[rs1])
            fr = h_d2s(a)
            c.fflags |= get_fe()
            k = 0x7fc00000 if fr != fr else f2b(fr)
            c.f[rd] = (~cast(u64, 0) << 32) | k
        elif fmt == 1 and rs2 == 0:
            ua = unbox(c.f[rs1])
            if is_snan(ua, 0): c.fflags |= 16
            fa = b2f(cast(u32, ua))
            c.f[rd] = cast(u64, 0x7ff8) << 48 if fa != fa else d2b(cast(cython.double, fa))
        else: return 1
    elif f5 == 24:
        if fmt == 1: a = b2d(c.f[rs1])
        else: a = cast(cython.double, b2f(unbox(c.f[rs1])))
        if rs2 > 3: return 1
        ua = cvt_int(c, a, rs2, rm)
        if rd: c.x[rd] = ua
    elif f5 == 26:
        ua = c.x[rs1]
        if fmt == 1:
            if rs2 == 0: d = cast(i32, ua)
            elif rs2 == 1: d = cast(u32, ua)
            elif rs2 == 2: d = h_l2d(cast(i64, ua))
            else: d = h_ul2d(ua)
            c.fflags |= get_fe()
            c.f[rd] = d2b(d)
        else:
            if rs2 == 0: fr = h_l2s(cast(i32, ua))
            elif rs2 == 1: fr = h_l2s(cast(u32, ua))
            elif rs2 == 2: fr = h_l2s(cast(i64, ua))
            else: fr = h_ul2s(ua)
            c.fflags |= get_fe()
            c.f[rd] = (~cast(u64, 0) << 32) | f2b(fr)
    elif f5 == 28:
        if rm == 0:
            ua = c.f[rs1] if fmt == 1 else cast(u64, cast(i64, cast(i32, c.f[rs1])))
            if rd: c.x[rd] = ua
        elif rm == 1:
            if fmt == 1:
                ua = c.f[rs1]
                ub = fclass(ua >> 63, (ua >> 52) & 0x7ff, 0x7ff, ua & (~cast(u64, 0) >> 12), cast(u64, 1) << 51)
            else:
                ua = unbox(c.f[rs1])
                ub = fclass(ua >> 31, (ua >> 23) & 0xff, 0xff, ua & 0x7fffff, 0x400000)
            if rd: c.x[rd] = ub
        else: return 1
    elif f5 == 30:
        c.f[rd] = c.x[rs1] if fmt == 1 else (~cast(u64, 0) << 32) | cast(u32, c.x[rs1])
    else:
        return 1
    if host != FE_TONEAREST: fesetround(FE_TONEAREST)
    return 0
@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_snan(v: u64, fmt: u32) -> cython.bint:
    if fmt == 1: return ((v >> 51) & 0xfff) == 0xffe and (v & (~cast(u64, 0) >> 13)) != 0
    return ((v >> 22) & 0x1ff) == 0x1fe and (v & 0x3fffff) != 0
