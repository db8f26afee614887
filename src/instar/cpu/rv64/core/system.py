"""Instructions that end a run of decoded code: environment calls, returns, register access, fences.

Each function returns the exception cause it raises, or -1; ``pc`` still points to the instruction when it is called.
"""

import cython
from cython import cast
from cython.cimports.instar.cpu.rv64.core.types import *


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def system(c: pCpu, ip: pInsn) -> i64:
    """Execute the system instruction of an entry; on success ``pc`` is after it, or where it goes."""
    kind: i32 = ip.rs2
    cause: i64 = 2
    next_pc: u64 = c.pc + 4  # the only one that is shorter, ebreak, does not get there
    c.tval = cast(u32, ip.imm)
    if kind == SYSTEM_ECALL:
        return ecall(c)
    elif kind == SYSTEM_EBREAK:
        c.tval = c.pc
        return 3
    elif kind == SYSTEM_SRET:
        return sret(c)
    elif kind == SYSTEM_MRET:
        return mret(c)
    elif kind == SYSTEM_WFI:
        cause = wfi(c)
    elif kind == SYSTEM_SFENCE_VMA:
        cause = sfence_vma(c, ip)
    elif kind == SYSTEM_FENCE_I:
        cause = CAUSE_NONE  # decoded code is never stale, and this is a boundary
    elif kind == SYSTEM_CSRRW or kind == SYSTEM_CSRRS or kind == SYSTEM_CSRRC:
        cause = csr_instruction(c, ip, kind - SYSTEM_CSRRW, c.x[ip.rs1])
    elif kind == SYSTEM_CSRRWI or kind == SYSTEM_CSRRSI or kind == SYSTEM_CSRRCI:
        cause = csr_instruction(c, ip, kind - SYSTEM_CSRRWI, ip.rs1)
    if cause == CAUSE_NONE:
        c.pc = next_pc
    return cause


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def ecall(c: pCpu) -> i64:
    """Call the built-in SBI, or trap."""
    c.tval = 0
    if c.priv == 1 and c.sbi != 0:
        if c.shared.defers != 0 and sbi_of_machine(c.x[17]):
            c.shared.deferred = 1
            return CAUSE_DEFERRED
        c.pc += 4
        sbi_call(c)
        return CAUSE_NONE
    return cast(i64, 8 + c.priv)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def sret(c: pCpu) -> i64:
    """Illegal in user mode, and in supervisor mode if TSR says so."""
    if c.priv == 0 or (c.priv == 1 and (c.mstatus >> 22) & 1 != 0):
        return 2
    leave_supervisor(c)
    return CAUSE_NONE


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def mret(c: pCpu) -> i64:
    if c.priv != 3:
        return 2
    leave_machine(c)
    return CAUSE_NONE


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def wfi(c: pCpu) -> i64:
    """Wait for an interrupt; illegal in user mode, and in supervisor mode if TW says so."""
    if c.priv == 0 or (c.priv == 1 and (c.mstatus >> 21) & 1 != 0):
        return 2
    c.wfi = 1
    return CAUSE_NONE


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def sfence_vma(c: pCpu, ip: pInsn) -> i64:
    """Drop what is cached of one address or of all; there are no address space identifiers to tell apart."""
    if c.priv == 0 or (c.priv == 1 and (c.mstatus >> 20) & 1 != 0):
        return 2
    c.n_sfence += 1
    if ip.rs1 == 0:
        flush_tlb(c)
    else:
        flush_address(c, c.x[ip.rs1])
    return CAUSE_NONE


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def csr_instruction(c: pCpu, ip: pInsn, how: i32, value: u64) -> i64:
    """Swap (how 0), set (1) or clear (2) bits of a register."""
    n: u32 = cast(u32, ip.imm) >> 20
    writes: cython.bint = how == 0 or ip.rs1 != 0
    old: u64
    base: u64
    if ((n >> 8) & 3) > c.priv or (writes and (n >> 10) == 3):
        return 2
    old = csr_read(c, n)
    if c.fault != 0:
        return 2
    # Lines and timers show in mip but are not what set and clear work on.
    base = c.mip if n == 0x344 else old
    if how == 0:
        csr_write(c, n, value)
    elif writes:
        csr_write(c, n, base | value if how == 1 else base & ~value)
    c.x[ip.rd] = old
    return CAUSE_NONE
