"""Calls into Python: device registers and the machine's part of the SBI. With the GIL.

The bus must not raise. If it does, the access fails, the run ends at once and ``run`` raises what it raised.
"""

import cython
from cython import cast
from cython.cimports.instar.cpu.rv64.core.types import *


@cython.cfunc
@cython.exceptval(check=False)
def bus_read(m: pShared, pa: u64, size: cython.int, value: P_u64) -> cython.bint:
    """Read a device register; False where nothing answers."""
    core: Core = cast(Core, m.core)
    try:
        got = core.mmio_read(pa, size)
        if got == -1:
            return False
        value[0] = got & EMPTY
        return True
    except BaseException as e:
        core.error = e
        m.raised = 1
        return False


@cython.cfunc
@cython.exceptval(check=False)
def bus_write(m: pShared, pa: u64, size: cython.int, value: u64) -> cython.bint:
    """Write a device register; False where nothing answers."""
    core: Core = cast(Core, m.core)
    try:
        return core.mmio_write(pa, size, value) != -1
    except BaseException as e:
        core.error = e
        m.raised = 1
        return False


@cython.cfunc
@cython.exceptval(check=False)
def bus_sbi(c: pCpu, error: P_u64, value: P_u64) -> cython.void:
    """Hand an SBI call to the machine; arguments are in the hart's registers."""
    core: Core = cast(Core, c.shared.core)
    args: tuple
    error[0] = SBI_FAILED
    value[0] = 0
    try:
        args = (c.x[10], c.x[11], c.x[12], c.x[13], c.x[14], c.x[15])
        code, result = core.sbi(c.index, c.x[17], c.x[16], args)
        error[0] = code & EMPTY
        value[0] = result & EMPTY
    except BaseException as e:
        core.error = e
        c.shared.raised = 1
