"""The supervisor binary interface for kernels that are started in supervisor mode.

BASE, TIME, IPI, RFENCE and HSM are done here; DBCN, SRST and the legacy console and shutdown calls go to the machine.

Source: RISC-V SBI specification 2.0.
"""

import cython
from cython import cast
from cython.cimports.instar.cpu.rv64.core.types import *


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def sbi_call(c: pCpu) -> cython.void:
    """Serve the call in a7 (extension) and a6 (function); ``pc`` is after the ecall already."""
    eid: u64 = c.x[17]
    error: i64 = SBI_NOT_SUPPORTED
    value: u64 = 0
    if eid <= 0xF:
        sbi_legacy(c, eid)
        return
    elif eid == SBI_BASE:
        error = sbi_base(c, cython.address(value))
    elif eid == SBI_TIME:
        if c.x[16] == 0:
            set_timer(c, c.x[10])
            error = 0
    elif eid == SBI_IPI:
        if c.x[16] == 0:
            error = sbi_ipi(c)
    elif eid == SBI_RFENCE:
        error = sbi_rfence(c)
    elif eid == SBI_HSM:
        error = sbi_hsm(c, cython.address(value))
    elif sbi_of_machine(eid):
        error = machine_sbi(c, cython.address(value))
    c.x[10] = cast(u64, error)
    c.x[11] = value


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def sbi_of_machine(eid: u64) -> cython.bint:
    """Return whether the machine serves an extension: consoles, shutdown and reset."""
    return eid == SBI_DBCN or eid == SBI_SRST or eid == 1 or eid == 2 or eid == 8


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def machine_sbi(c: pCpu, value: P_u64) -> i64:
    """Let the machine serve a call; the run ends after it, to look at what it changed."""
    error: u64 = 0
    with cython.gil:
        bus_sbi(c, cython.address(error), value)
    return cast(i64, error)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def sbi_legacy(c: pCpu, eid: u64) -> cython.void:
    """Calls of SBI 0.1 return one value, in a0: what was asked for, or a negative error."""
    error: i64
    value: u64 = 0
    if eid == 0:
        set_timer(c, c.x[10])
        c.x[10] = 0
        return
    if not sbi_of_machine(eid):
        c.x[10] = cast(u64, cast(i64, SBI_NOT_SUPPORTED))
        return
    error = machine_sbi(c, cython.address(value))
    c.x[10] = cast(u64, error) if error != 0 else value


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def sbi_base(c: pCpu, value: P_u64) -> i64:
    fid: u64 = c.x[16]
    if fid == 0:
        value[0] = 2 << 24  # version 2.0
    elif fid == 1:
        value[0] = 0x999  # implementation: none of the registered ones
    elif fid == 2:
        value[0] = 1
    elif fid == 3:
        value[0] = sbi_probe(c.x[10])
    elif fid > 6:  # 4 to 6 are vendor, architecture and implementation of the hart: 0
        return SBI_NOT_SUPPORTED
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def sbi_probe(eid: u64) -> u64:
    """Return 1 for an extension that answers."""
    if eid == 0 or eid == 1 or eid == 2 or eid == 8:
        return 1
    if eid == SBI_BASE or eid == SBI_TIME or eid == SBI_IPI or eid == SBI_RFENCE:
        return 1
    if eid == SBI_HSM or eid == SBI_DBCN or eid == SBI_SRST:
        return 1
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_timer(c: pCpu, at: u64) -> cython.void:
    c.stimecmp = at
    c.mip &= ~cast(u64, 0x20)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def hart_mask(c: pCpu, mask: u64, base: u64, chosen: P_u64) -> cython.bint:
    """Store which harts a mask means, one bit each; False if it names one that does not exist."""
    count: u64 = c.shared.count
    if base == EMPTY:
        chosen[0] = (cast(u64, 1) << count) - 1
        return True
    if mask == 0:
        chosen[0] = 0
        return True
    if base >= count or (mask >> (count - base)) != 0:
        return False
    chosen[0] = mask << base
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def sbi_ipi(c: pCpu) -> i64:
    chosen: u64 = 0
    i: u64
    if not hart_mask(c, c.x[10], c.x[11], cython.address(chosen)):
        return SBI_INVALID_PARAM
    for i in range(c.shared.count):
        if (chosen >> i) & 1:
            c.shared.harts[i].mip |= 2
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def sbi_rfence(c: pCpu) -> i64:
    """fence.i (0), sfence.vma (1), the same with an address space identifier (2)."""
    chosen: u64 = 0
    i: u64
    if c.x[16] > 2:
        return SBI_NOT_SUPPORTED
    if not hart_mask(c, c.x[10], c.x[11], cython.address(chosen)):
        return SBI_INVALID_PARAM
    if c.x[16] == 0:
        return 0  # decoded code is never stale
    for i in range(c.shared.count):
        if (chosen >> i) & 1:
            flush_range(c.shared.harts[i], c.x[12], c.x[13])
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def flush_range(c: pCpu, start: u64, size: u64) -> cython.void:
    """Drop what is cached of a range; of everything, if it is long, empty at 0, or of all ones."""
    va: u64 = start & ~cast(u64, 0xFFF)
    c.n_sfence += 1
    if (start == 0 and size == 0) or size > 16 * 4096:
        flush_tlb(c)
        return
    # The first page may begin before the range: the difference is then a number just below 2**64.
    while va - start >= ~cast(u64, 0xFFF) or va - start < size:
        flush_address(c, va)
        va += 4096


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def sbi_hsm(c: pCpu, value: P_u64) -> i64:
    fid: u64 = c.x[16]
    hart: u64 = c.x[10]
    if fid == 1:
        c.hsm = HSM_STOPPED
        return 0
    if fid == 3:
        return hart_suspend(c)
    if fid != 0 and fid != 2:
        return SBI_NOT_SUPPORTED
    if hart >= c.shared.count:
        return SBI_INVALID_PARAM
    if fid == 2:
        value[0] = c.shared.harts[hart].hsm
        return 0
    if c.shared.harts[hart].hsm != HSM_STOPPED:
        return SBI_ALREADY_AVAILABLE
    if not in_ram(c.shared, c.x[11]):
        return SBI_INVALID_ADDRESS
    start_supervisor(c.shared.harts[hart], c.x[11], hart, c.x[12])
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def hart_suspend(c: pCpu) -> i64:
    """Suspend this hart: the default retentive kind goes on after the call when an interrupt is pending."""
    kind: u64 = zx32(c.x[10])
    if kind == 0:
        c.wfi = 1
        c.hsm = HSM_SUSPENDED
        return 0
    if (kind & 0x7FFFFFFF) >= 0x10000000 or kind == 0x80000000:
        return SBI_NOT_SUPPORTED
    return SBI_INVALID_PARAM


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def start_supervisor(c: pCpu, pc: u64, a0: u64, a1: u64) -> cython.void:
    """Start a hart in supervisor mode as an SBI would: everything delegated, no translation, no interrupts."""
    reset_hart(c)
    c.sbi = 1
    c.hsm = HSM_STARTED
    c.priv = 1
    c.pc = pc
    c.x[10] = a0
    c.x[11] = a1
    c.medeleg = 0xB1FF
    c.mideleg = 0x222
    c.mcounteren = 7
    c.scounteren = 7  # as OpenSBI leaves it: kernels rely on it, and the vDSO of programs reads the time
    c.menvcfg = c.shared.sstc << 63
    c.pmpcfg[0] = 0x1F  # all memory, for everybody
    c.pmpaddr[0] = PMP_ADDRESS
    pmp_update(c)
    select_tlbs(c)
