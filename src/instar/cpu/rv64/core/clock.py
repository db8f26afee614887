"""Virtual time, in nanoseconds and in ticks of 100 ns: the host's clock while it runs, or a count of instructions."""

import cython
from cython import cast
from cython.cimports.instar.cpu.rv64.core.types import *


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def count_now(m: pShared) -> u64:
    """Return how many instructions have been executed, also from within a slice (in a device access)."""
    if m.slice == 0:
        return m.icount
    return m.icount + m.slice - cast(u64, m.harts[m.current].left)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def virtual_ns(m: pShared) -> u64:
    """Return virtual time; from any thread in real time, else from the harts' thread or while they are parked."""
    if m.icount_shift >= 0:
        return m.clock_base + (count_now(m) << m.icount_shift)
    if m.clock_running != 0:
        return m.clock_base + host_ns()
    return m.clock_base


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def ticks(m: pShared) -> u64:
    return virtual_ns(m) // 100


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_virtual_ns(m: pShared, ns: u64) -> cython.void:
    """Set virtual time; a clock of the host that runs goes on from there."""
    if m.icount_shift >= 0:
        m.clock_base = ns - (m.icount << m.icount_shift)
    elif m.clock_running != 0:
        m.clock_base = ns - host_ns()
    else:
        m.clock_base = ns


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def deadline(c: pCpu) -> u64:
    """Return the virtual time at which a hart's timer fires, all ones: never."""
    if not timer_enabled(c) or c.stimecmp > EMPTY // 100:
        return EMPTY
    return c.stimecmp * 100


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def until_timer(c: pCpu, most: u64) -> u64:
    """Return how many instructions a hart may execute before its timer must be looked at, 1 to most."""
    m: pShared = c.shared
    at: u64
    now: u64
    if m.icount_shift < 0:
        return most
    at = deadline(c)
    now = virtual_ns(m)
    if at <= now or ((at - now) >> m.icount_shift) >= most:
        return most
    return (at - now + (cast(u64, 1) << m.icount_shift) - 1) >> m.icount_shift
