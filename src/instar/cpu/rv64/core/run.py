"""The run loop: harts take turns of a fixed number of instructions, each turn in slices.

A slice ends at every boundary where something may have changed: system instruction, exception, device access, timer,
end of the turn, break, limit. Whose turn it is and what is left of it is state; where a slice ends is not, so that an
extra stop changes nothing the guest can see.
"""

import cython
from cython import cast
from cython.cimports.instar.cpu.rv64.core.types import *

QUANTUM = cython.declare(u64, 2000)  # instructions a turn, if there is more than one hart
SLICE = cython.declare(u64, 20000)  # instructions at most before the host is heard: about 50 us


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def reset_hart(c: pCpu) -> cython.void:
    """Machine mode at the start of RAM, stopped."""
    i: u64
    for i in range(33):
        c.x[i] = 0
    for i in range(32):
        c.f[i] = 0
    for i in range(16):
        c.pmpaddr[i] = 0
    c.pmpcfg[0] = c.pmpcfg[1] = 0
    c.pc = c.shared.ram_base
    c.priv = 3
    c.mstatus = c.mtvec = c.medeleg = c.mideleg = c.mie = c.mip = 0
    c.mepc = c.mcause = c.mtval = c.mscratch = c.mcounteren = c.menvcfg = 0
    c.stvec = c.sepc = c.scause = c.stval = c.sscratch = c.scounteren = c.satp = c.senvcfg = 0
    c.stimecmp = EMPTY
    c.mcycle = c.minstret = c.frm = c.fflags = 0
    c.reserved = c.reserved_addr = c.reserved_value = 0
    c.wfi = c.sbi = 0
    c.hsm = HSM_STOPPED
    c.dirty = 0xFF
    pmp_update(c)
    select_tlbs(c)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def pending(c: pCpu) -> u64:
    """Return the interrupts that are pending and enabled one by one (mie)."""
    if c.mie == 0:
        return 0
    return read_mip(c, 0) & c.mie


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def runnable(c: pCpu) -> cython.bint:
    if c.hsm == HSM_STOPPED:
        return False
    return c.wfi == 0 or pending(c) != 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def pick(m: pShared) -> pCpu:
    """Return the hart whose turn it is; NULL if all wait."""
    i: u64
    turn: u64
    if m.quantum == 0:
        m.current = (m.current + 1) % m.count
        m.quantum = QUANTUM
    for i in range(m.count):
        turn = (m.current + i) % m.count
        if runnable(m.harts[turn]):
            if i != 0:
                m.current = turn
                m.quantum = QUANTUM
            return m.harts[turn]
    return cython.NULL


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def run_harts(m: pShared, limit: u64) -> cython.int:
    """Interpret until there is a reason to return; limit is a value of icount."""
    c: pCpu
    while True:
        if atomic_load(cython.address(m.kicked)) != 0:
            atomic_store(cython.address(m.kicked), 0)
            return RUN_KICKED
        if m.raised != 0:
            return RUN_KICKED
        if m.deferred != 0:
            return RUN_DEFERRED
        if m.watch_hit != 0:
            return RUN_WATCH
        if m.icount >= m.break_at:
            return RUN_BREAK
        if m.icount >= limit:
            return RUN_LIMIT
        if atomic_load(cython.address(m.code_written)) != 0:
            atomic_store(cython.address(m.code_written), 0)
            drop_written(m)
        if m.arena_full != 0:
            drop_all_code(m)
        c = pick(m)
        if c == cython.NULL:
            return RUN_IDLE
        run_slice(c, limit)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def slice_length(c: pCpu, limit: u64) -> u64:
    """Return how many instructions may run before the next boundary that is known of, at least 1."""
    m: pShared = c.shared
    n: u64 = SLICE
    if m.count > 1 and m.quantum < n:
        n = m.quantum
    if limit - m.icount < n:
        n = limit - m.icount
    if m.break_at - m.icount < n:
        n = m.break_at - m.icount
    return until_timer(c, n)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def account(c: pCpu, done: u64, retired: u64) -> cython.void:
    """Count instructions, and traps that took the place of one."""
    m: pShared = c.shared
    c.mcycle += done
    c.minstret += retired
    m.icount += done
    if m.count > 1:
        m.quantum -= done


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def run_slice(c: pCpu, limit: u64) -> cython.void:
    """Take an interrupt if there is one, then run decoded code up to the next boundary."""
    m: pShared = c.shared
    n: u64
    left: i64
    found: u64 = pending(c)
    if c.wfi != 0:
        c.wfi = 0
        c.hsm = HSM_STARTED
    if found != 0:
        take_interrupt(c, found)
    c.cause = CAUSE_NONE
    c.fault = 0
    if not enter_code(c):
        if c.fault != 0:
            raise_exception(c)
        return
    n = slice_length(c, limit)
    c.leave = 0
    c.left = cast(i64, n)
    m.slice = n
    left = run_code(c, cast(i64, n))
    m.slice = 0
    c.pc = c.page_va + (cast(u64, c.ip - c.base) << 1)
    account(c, n - cast(u64, left), n - cast(u64, left))
    if c.cause == CAUSE_SYSTEM:
        c.cause = system(c, c.ip)
        if c.cause == CAUSE_NONE:
            account(c, 1, 1)
            return
    if c.cause != CAUSE_NONE and c.cause != CAUSE_DEFERRED:
        raise_exception(c)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def raise_exception(c: pCpu) -> cython.void:
    """Trap, which counts like an instruction: a guest that only traps still comes to its break."""
    trap(c, cast(u64, c.cause), 0, c.tval)
    account(c, 1, 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def enter_code(c: pCpu) -> cython.bint:
    """Find the decoded entry for ``pc``; False: fault, or no room for code now."""
    it: pItlb = c.itlb + ((c.pc >> 12) & 255)
    if it.tag != (c.pc >> 12):
        it = fill_code(c, c.pc)
        if it == cython.NULL:
            return False
    c.base = it.base
    c.page_va = c.pc & ~cast(u64, 0xFFF)
    c.ip = it.base + ((c.pc & 0xFFF) >> 1)
    return True
