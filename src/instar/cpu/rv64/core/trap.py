"""Traps: exceptions and interrupts, into a more privileged mode and back.

Source: RISC-V privileged architecture 20211203, 3.1.6-3.1.9, 3.3.2.
"""

import cython
from cython import cast
from cython.cimports.instar.cpu.rv64.core.types import *


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def trap(c: pCpu, cause: u64, interrupt: u64, tval: u64) -> cython.void:
    """Enter the handler of a cause at ``pc``."""
    delegated: u64 = c.mideleg if interrupt else c.medeleg
    c.n_trap += 1
    c.reserved = 0
    if c.priv <= 1 and (delegated >> cause) & 1:
        enter_supervisor(c, cause, interrupt, tval)
    else:
        enter_machine(c, cause, interrupt, tval)
    if c.shared.flush_everything != 0:
        flush_tlb(c)
    select_tlbs(c)


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def vector(base: u64, cause: u64, interrupt: u64) -> u64:
    """Return where a handler begins: interrupts have their own places in vectored mode."""
    return (base & ~cast(u64, 3)) + (4 * cause if interrupt != 0 and (base & 1) != 0 else 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def enter_supervisor(c: pCpu, cause: u64, interrupt: u64, tval: u64) -> cython.void:
    s: u64 = c.mstatus
    c.scause = cause | (interrupt << 63)
    c.sepc = c.pc
    c.stval = tval
    s = (s & ~cast(u64, 0x20)) | (((s >> 1) & 1) << 5)  # SPIE = SIE
    s = (s & ~cast(u64, 0x100)) | (c.priv << 8)  # SPP
    c.mstatus = s & ~cast(u64, 2)  # SIE
    c.priv = 1
    c.pc = vector(c.stvec, cause, interrupt)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def enter_machine(c: pCpu, cause: u64, interrupt: u64, tval: u64) -> cython.void:
    s: u64 = c.mstatus
    c.mcause = cause | (interrupt << 63)
    c.mepc = c.pc
    c.mtval = tval
    s = (s & ~cast(u64, 0x80)) | (((s >> 3) & 1) << 7)  # MPIE = MIE
    s = (s & ~cast(u64, 0x1800)) | (c.priv << 11)  # MPP
    c.mstatus = s & ~cast(u64, 8)  # MIE
    c.priv = 3
    c.pc = vector(c.mtvec, cause, interrupt)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def leave_supervisor(c: pCpu) -> cython.void:
    """Do what sret does."""
    s: u64 = c.mstatus
    c.priv = (s >> 8) & 1
    s = (s & ~cast(u64, 2)) | (((s >> 5) & 1) << 1)  # SIE = SPIE
    c.mstatus = (s | 0x20) & ~cast(u64, 0x20100)  # SPIE = 1, SPP = user, MPRV = 0
    c.pc = c.sepc
    select_tlbs(c)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def leave_machine(c: pCpu) -> cython.void:
    """Do what mret does."""
    s: u64 = c.mstatus
    c.priv = (s >> 11) & 3
    s = (s & ~cast(u64, 8)) | (((s >> 7) & 1) << 3)  # MIE = MPIE
    s = (s | 0x80) & ~cast(u64, 0x1800)  # MPIE = 1, MPP = user
    if c.priv != 3:
        s &= ~cast(u64, 0x20000)  # MPRV
    c.mstatus = s
    c.pc = c.mepc
    select_tlbs(c)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def enabled_interrupts(c: pCpu, pending: u64) -> u64:
    """Return which of the pending interrupts the present privilege and status let through."""
    found: u64 = pending & ~c.mideleg
    if found != 0 and (c.priv < 3 or (c.mstatus & 8) != 0):
        return found
    found = pending & c.mideleg
    if found != 0 and (c.priv < 1 or (c.priv == 1 and (c.mstatus & 2) != 0)):
        return found
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def take_interrupt(c: pCpu, pending: u64) -> cython.void:
    """Enter the handler of the most important interrupt that may be taken, if any."""
    found: u64 = enabled_interrupts(c, pending)
    cause: u64 = 5
    if found == 0:
        return
    if found & 0x800:
        cause = 11
    elif found & 8:
        cause = 3
    elif found & 0x80:
        cause = 7
    elif found & 0x200:
        cause = 9
    elif found & 2:
        cause = 1
    c.n_irq += 1
    trap(c, cause, 1, 0)
