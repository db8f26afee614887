"""Decoded code: a cache of decoded pages, filled one instruction at a time.

What is decoded is always what memory holds: pages with decoded code are write-protected in the data TLBs, so every
store into them comes here first. A page that is mostly stored to is dropped and loses the protection. Device writes
(other threads) only mark pages; the run loop drops those at the next boundary.
"""

import cython
from cython import cast, sizeof
from cython.cimports.instar.cpu.rv64.core.types import *

ARENA_PAGES = cython.declare(u64, 4096)  # at most 67 MB of decoded code; touched only as it is used
MANY_STORES = cython.declare(u64, 256)  # to a page, before dropping it costs less than seeing them


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def put(ip: pInsn, op: u32, rd: u32, rs1: u32, rs2: u32, imm: i64) -> cython.void:
    """Fill an entry; register 0 as a target becomes the one that nobody reads."""
    ip.op = cast(u8, op)
    ip.rd = cast(u8, rd if rd != 0 else 32)
    ip.rs1 = cast(u8, rs1)
    ip.rs2 = cast(u8, rs2)
    ip.imm = cast(i32, imm)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def put_float(ip: pInsn, op: u32, rd: u32, rs1: u32, imm: i64) -> cython.void:
    """Fill an entry whose target is a floating-point register."""
    put(ip, op, 0, rs1, 0, imm)
    ip.rd = cast(u8, rd)


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def in_page(off: i64, imm: i64) -> cython.bint:
    return off >= 0 and off + imm >= 0 and off + imm < 4096


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def put_branch(ip: pInsn, op: u32, rs1: u32, rs2: u32, imm: i64, off: i64) -> cython.void:
    """Fill a branch: within the page it moves the entry pointer, else (the next number) it computes an address."""
    if in_page(off, imm):
        put(ip, op, 0, rs1, rs2, imm >> 1)
    else:
        put(ip, op + 1, 0, rs1, rs2, imm)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def put_jal(ip: pInsn, rd: u32, imm: i64, off: i64) -> cython.void:
    """Fill a jump: in the page with or without a link, or out of it."""
    if not in_page(off, imm):
        put(ip, OP_JAL_FAR, rd, 0, 0, imm)
    elif rd != 0:
        put(ip, OP_JAL, rd, 0, 0, imm >> 1)
    else:
        put(ip, OP_JUMP, 0, 0, 0, imm >> 1)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def decode_at(c: pCpu, ip: pInsn, base: pInsn) -> cython.void:
    """Decode the instruction of an entry, and find the loop that it may end; base is the page it is in."""
    decode_entry(c, ip, base)
    mark_loop(c, ip, base)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def decode_entry(c: pCpu, ip: pInsn, base: pInsn) -> cython.void:
    """Decode the instruction of an entry."""
    off: i64 = (ip - base) << 1
    page: pCode = cast(pCode, base)  # the entries come first in it
    p: P_u8 = c.shared.ram + (page.number << 12) + off
    w: u32 = cast(u32, get_bytes(p, 2))
    c.shared.n_decode += 1
    if (w & 3) != 3:
        decode16(ip, w, off)
    elif off == 4094:
        put(ip, OP_CROSS, 0, 0, 0, w)
    else:
        decode32(ip, cast(u32, get_bytes(p, 4)), off)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def decode_cross(c: pCpu, ip: pInsn, page_va: u64) -> cython.int:
    """Decode the instruction at the end of a page, whose second half is in the next one, to ``c.cross``.

    Returns 1 if the run must end before it: a fault, or no room.
    """
    m: pShared = c.shared
    va: u64 = page_va + 0x1000
    pa: u64
    w: u32 = cast(u32, ip.imm)  # before anything below can drop the page it is in
    if c.cross_ip == ip and c.cross_va == va and c.cross_epoch == m.epoch:
        return 0
    pa = translate(c, va, ACCESS_FETCH)
    if c.fault != 0:
        return 1
    if pa - m.ram_base >= m.ram_size:
        access_fault(c, va, ACCESS_FETCH)
        return 1
    if code_page(m, (pa - m.ram_base) >> 12) == cython.NULL:  # from now on its stores are seen
        return 1
    w |= cast(u32, get_bytes(m.ram + (pa - m.ram_base), 2)) << 16
    decode32(c.cross, w, -1)
    c.cross[2].op = OP_PAGE_END
    c.cross_ip = ip
    c.cross_va = va
    c.cross_epoch = m.epoch
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def code_word(c: pCpu, va: u64) -> u64:
    """Return the instruction word at an address that the hart has just fetched from."""
    m: pShared = c.shared
    pa: u64 = 0
    w: u64 = 0
    if look_up(c, va, cython.address(pa)) and in_ram(m, pa):
        w = get_bytes(m.ram + (pa - m.ram_base), 2)
    if (w & 3) == 3 and look_up(c, va + 2, cython.address(pa)) and in_ram(m, pa):
        w |= get_bytes(m.ram + (pa - m.ram_base), 2) << 16
    return w


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def code_page(m: pShared, number: u64) -> pInsn:
    """Return the decoded page for a RAM page, empty if it is new; NULL: the arena is full (it says so)."""
    page: pCode = m.code[number]
    if page != cython.NULL:
        return page.insns
    page = m.free_pages
    if page != cython.NULL:
        m.free_pages = cast(pCode, page.next_free)
        memset(page, 0, sizeof(CodePage))
    elif m.arena_used < ARENA_PAGES:
        page = m.arena + m.arena_used
        m.arena_used += 1
        if m.arena_used <= m.arena_touched:
            memset(page, 0, sizeof(CodePage))
        else:
            m.arena_touched = m.arena_used
    else:
        m.arena_full = 1
        return cython.NULL
    page.number = number
    page.insns[2048].op = OP_PAGE_END
    page.insns[2049].op = OP_PAGE_END
    atomic_store8(m.stale + number, 0)
    m.code[number] = page
    full_fence()  # a device's thread that does not see the page yet has written before we read
    protect(m, number)
    return page.insns


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def protect(m: pShared, number: u64) -> cython.void:
    """Make stores to a RAM page take the slow path, in all harts."""
    host: u64 = cast(u64, m.ram) + (number << 12)
    h: u64
    i: u64
    e: pTlb
    for h in range(m.count):
        for i in range(4 * 512):
            if (m.harts[h].dirty >> (i >> 9)) & 1 == 0:
                continue
            e = cast(pTlb, m.harts[h].tlbs) + i
            if e.store_tag != ~cast(u64, 0) and e.store_tag + e.add == host:
                e.store_tag = ~cast(u64, 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def code_store(c: pCpu, number: u64, off: u64, size: u64) -> cython.void:
    """Note a store into a page with decoded code: forget the instructions it touches, or the page."""
    m: pShared = c.shared
    page: pCode = m.code[number]
    first: i64 = cast(i64, off >> 1) - 1  # an instruction may begin one halfword before
    last: i64
    i: i64
    m.n_code_store += 1
    m.epoch += 1
    page.stores += 1
    if page.stores >= MANY_STORES:
        drop_page(m, number)
        c.leave = 1
        return
    last = cast(i64, (off + size - 1) >> 1) + LONGEST_LOOP  # a loop is marked at its end
    for i in range(first if first > 0 else 0, (last if last < 2047 else 2047) + 1):
        page.insns[i].op = OP_UNDECODED


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def drop_page(m: pShared, number: u64) -> cython.void:
    """Forget a page's decoded code. A hart that is in it may finish its instruction: the memory stays."""
    page: pCode = m.code[number]
    h: u64
    i: u64
    it: pItlb
    if page == cython.NULL:
        return
    for h in range(m.count):
        for i in range(4 * 256):
            it = cast(pItlb, m.harts[h].itlbs) + i
            if it.tag != ~cast(u64, 0) and it.base == page.insns:
                it.tag = ~cast(u64, 0)
    m.code[number] = cython.NULL
    page.next_free = cast(u64, m.free_pages)
    m.free_pages = page
    m.epoch += 1
    m.n_retire += 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def drop_all_code(m: pShared) -> cython.void:
    """Forget all decoded code; only between runs of it."""
    i: u64
    for i in range(m.arena_used):
        if m.code[m.arena[i].number] == m.arena + i:
            m.code[m.arena[i].number] = cython.NULL
    for i in range(m.count):
        flush_code_tlb(m.harts[i])
    m.arena_used = 0
    m.arena_full = 0
    m.free_pages = cython.NULL
    m.epoch += 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def drop_written(m: pShared) -> cython.void:
    """Forget the pages that devices have written since; only between runs of code."""
    i: u64
    number: u64
    for i in range(m.arena_used):
        number = m.arena[i].number
        if m.code[number] == m.arena + i and atomic_load8(m.stale + number) != 0:
            atomic_store8(m.stale + number, 0)
            drop_page(m, number)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def device_wrote(m: pShared, number: u64, pages: u64) -> cython.void:
    """Mark RAM pages as written by a device; from any thread, after the write."""
    i: u64
    found: u64 = 0
    full_fence()  # the data is in memory before the question whether it was decoded
    for i in range(number, number + pages):
        if m.code[i] != cython.NULL:
            atomic_store8(m.stale + i, 1)
            found = 1
    if found != 0:
        atomic_store(cython.address(m.code_written), 1)
