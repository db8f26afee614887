"""Registers with a meaning of their own: readers, writers and guards that the table in ``csrs.py`` names."""

import cython
from cython import cast
from cython.cimports.instar.cpu.rv64.core.types import *


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def csr_float(c: pCpu, n: u32) -> cython.bint:
    return (c.mstatus & FS_DIRTY) != 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def csr_satp(c: pCpu, n: u32) -> cython.bint:
    return not (c.priv == 1 and (c.mstatus >> 20) & 1 != 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def csr_counter(c: pCpu, n: u32) -> cython.bint:
    bit: u64 = n & 31
    if c.priv == 3:
        return True
    if (c.mcounteren >> bit) & 1 == 0:
        return False
    return c.priv == 1 or (c.scounteren >> bit) & 1 != 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def csr_timer(c: pCpu, n: u32) -> cython.bint:
    return c.priv == 3 or ((c.menvcfg >> 63) != 0 and (c.mcounteren & 2) != 0)


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def timer_enabled(c: pCpu) -> cython.bint:
    """Return whether stimecmp drives the supervisor's timer interrupt: set by the guest (Sstc), or for it by our SBI."""
    return (c.menvcfg >> 63) != 0 or c.sbi != 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_status(c: pCpu, n: u32) -> u64:
    """SD says that FS is dirty; UXL and SXL are 64 bits."""
    v: u64 = c.mstatus | STATUS_XL
    if (v & FS_DIRTY) == FS_DIRTY:
        v |= cast(u64, 1) << 63
    return v


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_status(c: pCpu, n: u32, v: u64) -> cython.void:
    mask: u64 = MSTATUS_WRITE
    if n == 0x100:
        mask &= SSTATUS_WRITE
    elif ((v >> 11) & 3) == 2:  # there is no such privilege to return to
        mask &= ~cast(u64, 0x1800)
    if (c.mstatus ^ v) & mask & (1 << 19):  # MXR: readable is what was not
        flush_tlb(c)
    c.mstatus = (c.mstatus & ~mask) | (v & mask)
    select_tlbs(c)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_fcsr(c: pCpu, n: u32) -> u64:
    return c.fflags | (c.frm << 5)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_float(c: pCpu, n: u32, v: u64) -> cython.void:
    c.mstatus |= FS_DIRTY
    if n == 2:
        c.frm = v & 7
        return
    c.fflags = v & 31
    if n == 3:
        c.frm = (v >> 5) & 7


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_mip(c: pCpu, n: u32) -> u64:
    """What software set, the external lines, and the timer."""
    v: u64 = (c.mip & 0x222) | (atomic_load(cython.address(c.lines)) & 0xA00)
    if timer_enabled(c):
        v &= ~cast(u64, 0x20)
        if ticks(c.shared) >= c.stimecmp:
            v |= 0x20
    return v


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_sip(c: pCpu, n: u32) -> u64:
    return read_mip(c, n) & c.mideleg


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_sip(c: pCpu, n: u32, v: u64) -> cython.void:
    mask: u64 = c.mideleg & 2
    c.mip = (c.mip & ~mask) | (v & mask)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_sie(c: pCpu, n: u32) -> u64:
    return c.mie & c.mideleg


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_sie(c: pCpu, n: u32, v: u64) -> cython.void:
    c.mie = (c.mie & ~c.mideleg) | (v & c.mideleg)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_satp(c: pCpu, n: u32, v: u64) -> cython.void:
    """A mode that is not there leaves the register as it is."""
    if (v >> 60) == 0 or (v >> 60) == 8:
        c.satp = v & SATP_WRITE
        flush_tlb(c)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_time(c: pCpu, n: u32) -> u64:
    return ticks(c.shared)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_counter(c: pCpu, n: u32, v: u64) -> cython.void:
    """The next instruction reads the value written: this one, which counts when it retires, does not add to it."""
    if n == 0xB00:
        c.mcycle = v - 1
    else:
        c.minstret = v - 1
