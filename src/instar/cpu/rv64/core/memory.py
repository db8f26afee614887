"""Loads and stores that the TLBs do not answer: translation, devices, misaligned addresses, atomics."""

import cython
from cython import cast
from cython.cimports.instar.cpu.rv64.core.types import *


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def put_ram(c: pCpu, off: u64, size: cython.int, v: u64) -> cython.void:
    """Store to RAM at an offset that is inside; the bytes do not cross a page."""
    m: pShared = c.shared
    if m.code[off >> 12] != cython.NULL:
        code_store(c, off >> 12, off & 0xFFF, size)
    put_bytes(m.ram + off, size, v)
    if m.ram_base + (off & ~cast(u64, 7)) == m.watch:
        if get_bytes(m.ram + (off & ~cast(u64, 7)), 8) != 0:
            m.watch_hit = 1
            c.leave = 1


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def in_ram(m: pShared, pa: u64) -> cython.bint:
    return pa - m.ram_base < m.ram_size


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def watched(m: pShared, pa: u64) -> cython.bint:
    """Return whether stores to a page must always come here."""
    return (pa ^ m.watch) >> 12 == 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def slow_load(c: pCpu, va: u64, size: cython.int) -> u64:
    """Load at a virtual address; ``c.fault`` is set if it fails."""
    m: pShared = c.shared
    pa: u64
    if va & cast(u64, size - 1):
        return split_load(c, va, size)
    c.n_slow += 1
    pa = translate(c, va, ACCESS_LOAD)
    if c.fault != 0:
        return 0
    if in_ram(m, pa):
        fill_data(c, va, pa, ACCESS_LOAD)
        return get_bytes(m.ram + (pa - m.ram_base), size)
    return device_load(c, va, pa, size)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def split_load(c: pCpu, va: u64, size: cython.int) -> u64:
    """Load at an odd address: from RAM only, perhaps from two pages."""
    m: pShared = c.shared
    value: u64 = 0
    first: cython.int = page_left(va, size)
    low: u64 = translate(c, va, ACCESS_LOAD)
    high: u64
    i: cython.int
    if c.fault != 0:
        return 0
    high = low + cast(u64, first)
    if first < size:
        high = translate(c, va + cast(u64, first), ACCESS_LOAD)
        if c.fault != 0:
            return 0
    if not in_ram(m, low) or (first < size and not in_ram(m, high)):
        access_fault(c, va, ACCESS_LOAD)
        return 0
    if first == size:
        return get_bytes(m.ram + (low - m.ram_base), size)
    for i in range(size):
        if i < first:
            value |= cast(u64, m.ram[low - m.ram_base + i]) << (8 * i)
        else:
            value |= cast(u64, m.ram[high - m.ram_base + i - first]) << (8 * i)
    return value


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def page_left(va: u64, size: cython.int) -> cython.int:
    """Return how many of size bytes are in the page of an address."""
    left: cython.int = cast(cython.int, 0x1000 - (va & 0xFFF))
    return size if size < left else left


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def slow_store(c: pCpu, va: u64, size: cython.int, v: u64) -> cython.void:
    """Store at a virtual address; ``c.fault`` is set if it fails, and nothing is stored."""
    m: pShared = c.shared
    pa: u64
    if va & cast(u64, size - 1):
        split_store(c, va, size, v)
        return
    c.n_slow += 1
    pa = translate(c, va, ACCESS_STORE)
    if c.fault != 0:
        return
    if in_ram(m, pa):
        put_ram(c, pa - m.ram_base, size, v)
        if not watched(m, pa):
            fill_data(c, va, pa, ACCESS_STORE)
        return
    device_store(c, va, pa, size, v)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def split_store(c: pCpu, va: u64, size: cython.int, v: u64) -> cython.void:
    """Store at an odd address: to RAM only, perhaps to two pages; both are asked before the first byte changes."""
    m: pShared = c.shared
    first: cython.int = page_left(va, size)
    low: u64 = translate(c, va, ACCESS_STORE)
    high: u64
    i: cython.int
    if c.fault != 0:
        return
    high = low + cast(u64, first)
    if first < size:
        high = translate(c, va + cast(u64, first), ACCESS_STORE)
        if c.fault != 0:
            return
    if not in_ram(m, low) or (first < size and not in_ram(m, high)):
        access_fault(c, va, ACCESS_STORE)
        return
    for i in range(size):
        if i < first:
            put_ram(c, low - m.ram_base + i, 1, v >> (8 * i))
        else:
            put_ram(c, high - m.ram_base + i - first, 1, v >> (8 * i))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def defer_access(c: pCpu) -> cython.void:
    """End the run before the instruction, as if it had not been begun: no device is here."""
    c.fault = 1
    c.cause = CAUSE_DEFERRED
    c.shared.deferred = 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def device_load(c: pCpu, va: u64, pa: u64, size: cython.int) -> u64:
    """Load from a device, through Python; the run ends after the instruction, to look at interrupts."""
    value: u64 = 0
    ok: cython.bint
    if c.shared.defers != 0:
        defer_access(c)
        return 0
    c.leave = 1
    c.shared.n_mmio += 1
    with cython.gil:
        ok = bus_read(c.shared, pa, size, cython.address(value))
    if not ok:
        access_fault(c, va, ACCESS_LOAD)
    return value


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def device_store(c: pCpu, va: u64, pa: u64, size: cython.int, v: u64) -> cython.void:
    """Store to a device, through Python; the run ends after the instruction, to look at interrupts."""
    ok: cython.bint
    if c.shared.defers != 0:
        defer_access(c)
        return
    c.leave = 1
    c.shared.n_mmio += 1
    if size < 8:
        v &= (cast(u64, 1) << (8 * size)) - 1
    with cython.gil:
        ok = bus_write(c.shared, pa, size, v)
    if not ok:
        access_fault(c, va, ACCESS_STORE)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def amo_place(c: pCpu, va: u64, size: cython.int, access: cython.int) -> u64:
    """Return the offset in RAM for an atomic access; ``c.fault`` is set if there is none."""
    m: pShared = c.shared
    e: pTlb = c.tlb + ((va >> 12) & 511)
    page: u64 = va & ~cast(u64, 0xFFF)
    pa: u64
    c.fault = 0
    if va & cast(u64, size - 1):
        c.fault = 1
        c.cause = 4 if access == ACCESS_LOAD else 6
        c.tval = va
        return 0
    if (e.load_tag if access == ACCESS_LOAD else e.store_tag) == page:
        return va + e.add - cast(u64, m.ram)
    pa = translate(c, va, access)
    if c.fault != 0:
        return 0
    if not in_ram(m, pa):
        access_fault(c, va, access)
        return 0
    if access == ACCESS_LOAD or not watched(m, pa):
        fill_data(c, va, pa, access)
    return pa - m.ram_base


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def get_signed(m: pShared, off: u64, size: cython.int) -> u64:
    v: u64 = get_bytes(m.ram + off, size)
    return sx32(v) if size == 4 else v


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def lr_exec(c: pCpu, ip: pInsn, size: cython.int) -> cython.void:
    """Load reserved. The reservation is an address and the value seen there."""
    m: pShared = c.shared
    off: u64 = amo_place(c, c.x[ip.rs1], size, ACCESS_LOAD)
    if c.fault != 0:
        return
    c.reserved = 1
    c.reserved_addr = m.ram_base + off
    c.reserved_value = get_signed(m, off, size)
    c.x[ip.rd] = c.reserved_value


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def sc_exec(c: pCpu, ip: pInsn, size: cython.int) -> cython.void:
    """Store conditional: to the reserved address, if its value is still the one seen."""
    m: pShared = c.shared
    off: u64 = amo_place(c, c.x[ip.rs1], size, ACCESS_STORE)
    failed: u64 = 1
    if c.fault != 0:
        return
    if c.reserved != 0 and c.reserved_addr == m.ram_base + off:
        if get_signed(m, off, size) == (
            sx32(c.reserved_value) if size == 4 else c.reserved_value
        ):
            put_ram(c, off, size, c.x[ip.rs2])
            failed = 0
    c.reserved = 0
    c.x[ip.rd] = failed


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def amo_exec(c: pCpu, ip: pInsn, size: cython.int) -> cython.void:
    """Read, modify, write. Harts take turns in one thread, so nothing can come between."""
    m: pShared = c.shared
    value: u64 = sx32(c.x[ip.rs2]) if size == 4 else c.x[ip.rs2]
    off: u64 = amo_place(c, c.x[ip.rs1], size, ACCESS_STORE)
    old: u64
    if c.fault != 0:
        return
    old = get_signed(m, off, size)
    put_ram(c, off, size, amo_value(ip.imm, old, value))
    c.x[ip.rd] = old
