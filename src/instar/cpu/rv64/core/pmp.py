"""Physical memory protection: 16 entries with a grain of 4 KiB (G = 10), so that a TLB entry has one answer.

Source: RISC-V privileged architecture 20211203, 3.7.
"""

import cython
from cython import cast
from cython.cimports.instar.cpu.rv64.core.types import *

PMP_RANGE = cython.declare(u64, 1)  # A field: off, top of range, four bytes (not with this grain), power of two
PMP_POWER = cython.declare(u64, 3)
PMP_LOCKED = cython.declare(u64, 0x80)
PMP_ADDRESS = cython.declare(u64, 0x003FFFFFFFFFFFFF)  # 54 bits: address >> 2


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def pmp_config(c: pCpu, i: u64) -> u64:
    return (c.pmpcfg[i >> 3] >> (8 * (i & 7))) & 0xFF


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def pmp_allows(c: pCpu, pa: u64, p: u64, access: cython.int) -> cython.bint:
    """Return whether privilege p may access the page of a physical address."""
    i: u64
    config: u64
    for i in range(16):
        if c.pmp_low[i] <= pa and pa < c.pmp_high[i]:
            config = pmp_config(c, i)
            if p == 3 and (config & PMP_LOCKED) == 0:
                return True
            if access == ACCESS_FETCH:
                return (config & 4) != 0
            return (config & (2 if access == ACCESS_STORE else 1)) != 0
    return p == 3


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def pmp_update(c: pCpu) -> cython.void:
    """Compute the ranges anew, after an entry has changed."""
    i: u64
    mode: u64
    a: u64
    previous: u64 = 0
    for i in range(16):
        a = c.pmpaddr[i]
        mode = (pmp_config(c, i) >> 3) & 3
        c.pmp_low[i] = 0
        c.pmp_high[i] = 0
        if mode == PMP_RANGE:
            c.pmp_low[i] = (previous >> 10) << 12
            c.pmp_high[i] = (a >> 10) << 12
        elif mode == PMP_POWER:
            a |= 0x1FF
            c.pmp_low[i] = (a & (a + 1)) << 2
            c.pmp_high[i] = ((a | (a + 1)) + 1) << 2
        previous = c.pmpaddr[i]
    flush_tlb(c)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_pmpcfg(c: pCpu, n: u32) -> u64:
    return c.pmpcfg[(n >> 1) & 1]


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_pmpcfg(c: pCpu, n: u32, v: u64) -> cython.void:
    """Write eight entries' configurations; locked ones stay, and so do bits that make no sense together."""
    k: u64 = (n >> 1) & 1
    i: u64
    new: u64
    value: u64 = 0
    for i in range(8):
        new = (v >> (8 * i)) & 0x9F
        if pmp_config(c, 8 * k + i) & PMP_LOCKED:
            new = pmp_config(c, 8 * k + i)
        if (new & 3) == 2:  # write without read is reserved
            new &= ~cast(u64, 2)
        if ((new >> 3) & 3) == 2:  # four bytes are finer than the grain
            new &= ~cast(u64, 0x18)
        value |= new << (8 * i)
    c.pmpcfg[k] = value
    pmp_update(c)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_pmpaddr(c: pCpu, n: u32) -> u64:
    """Bits below the grain read as the mode says (3.7.1)."""
    i: u64 = n & 15
    if (pmp_config(c, i) >> 3) & 2:
        return c.pmpaddr[i] | 0x1FF
    return c.pmpaddr[i] & ~cast(u64, 0x3FF)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_pmpaddr(c: pCpu, n: u32, v: u64) -> cython.void:
    i: u64 = n & 15
    if pmp_config(c, i) & PMP_LOCKED:
        return
    if i < 15 and (pmp_config(c, i + 1) & (PMP_LOCKED | 0x18)) == (PMP_LOCKED | 8):
        return  # it is the bottom of a locked range
    c.pmpaddr[i] = v & PMP_ADDRESS
    pmp_update(c)
