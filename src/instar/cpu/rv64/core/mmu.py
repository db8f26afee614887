"""Address translation: Sv39, physical memory protection, and the TLBs in front of them.

TLB entries stand for whole pages of RAM, so physical memory protection has a grain of 4 KiB. There are four of each
kind: user, supervisor, supervisor that may touch user pages (SUM), machine; a change of privilege only changes which
is in use.
"""

import cython
from cython import cast, sizeof
from cython.cimports.instar.cpu.rv64.core.types import *


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def flush_tlb(c: pCpu) -> cython.void:
    """Drop all entries of a hart."""
    i: cython.int
    for i in range(4):
        if (c.dirty >> i) & 1:
            memset(cast(P_u8, c.tlbs) + i * 512 * sizeof(Tlb), 0xFF, 512 * sizeof(Tlb))
        if (c.dirty >> (i + 4)) & 1:
            memset(cast(P_u8, c.itlbs) + i * 256 * sizeof(Itlb), 0xFF, 256 * sizeof(Itlb))
    c.dirty = 0
    c.large_low = EMPTY
    c.large_high = 0
    c.cross_ip = cython.NULL


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def flush_code_tlb(c: pCpu) -> cython.void:
    """Drop the entries for code of a hart."""
    memset(c.itlbs, 0xFF, 4 * 256 * sizeof(Itlb))
    c.dirty &= 0xF
    c.cross_ip = cython.NULL


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def flush_address(c: pCpu, va: u64) -> cython.void:
    """Drop what is cached of one virtual address.

    An entry stands for 4 KiB even where the mapping is a superpage, which one such fence must drop as a whole: an
    address between the lowest and the highest superpage seen drops everything.
    """
    i: cython.int
    if c.shared.flush_everything != 0 or (c.large_low <= va and va < c.large_high):
        flush_tlb(c)
        return
    for i in range(3):  # machine mode is not translated
        c.tlbs[i][(va >> 12) & 511].load_tag = EMPTY
        c.tlbs[i][(va >> 12) & 511].store_tag = EMPTY
        c.itlbs[i][(va >> 12) & 255].tag = EMPTY
    c.cross_ip = cython.NULL


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def data_priv(c: pCpu) -> u64:
    """Return the privilege that loads and stores have."""
    if c.priv == 3 and (c.mstatus >> 17) & 1:
        return (c.mstatus >> 11) & 3
    return c.priv


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def select_tlbs(c: pCpu) -> cython.void:
    """Use the TLBs for the present privilege and status."""
    p: u64 = data_priv(c)
    if p == 3 or p == 0:
        c.data_mode = p
    else:
        c.data_mode = 2 if (c.mstatus >> 18) & 1 else 1
    c.code_mode = c.priv
    c.tlb = cast(pTlb, cast(P_u8, c.tlbs) + c.data_mode * 512 * sizeof(Tlb))
    c.itlb = cast(pItlb, cast(P_u8, c.itlbs) + c.code_mode * 256 * sizeof(Itlb))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def access_fault(c: pCpu, va: u64, access: cython.int) -> cython.void:
    c.fault = 1
    c.cause = 5 if access == ACCESS_LOAD else (7 if access == ACCESS_STORE else 1)
    c.tval = va


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def page_fault(c: pCpu, va: u64, access: cython.int) -> cython.void:
    c.fault = 1
    c.cause = 13 if access == ACCESS_LOAD else (15 if access == ACCESS_STORE else 12)
    c.tval = va


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def leaf_allows(c: pCpu, pte: u64, p: u64, access: cython.int) -> cython.bint:
    """Return whether a leaf allows an access at privilege p (0 or 1)."""
    if pte & PTE_U:
        if p == 1 and (access == ACCESS_FETCH or (c.mstatus >> 18) & 1 == 0):
            return False
    elif p == 0:
        return False
    if access == ACCESS_FETCH:
        return (pte & PTE_X) != 0
    if access == ACCESS_STORE:
        return (pte & PTE_W) != 0
    return (pte & PTE_R) != 0 or ((pte & PTE_X) != 0 and (c.mstatus >> 19) & 1 != 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def walk(m: pShared, c: pCpu, va: u64, slot: P_u64, level: P_u64) -> u64:
    """Return the leaf for a virtual address, the physical address of its entry and its level.

    Returns 0 without a leaf (or a misaligned or malformed one), 1 where a table lies outside of RAM or is protected.
    Nothing is changed.
    """
    table: u64 = (c.satp & PPN_MASK) << 12
    lvl: i64 = 2
    pte: u64
    while lvl >= 0:
        slot[0] = table + ((va >> (12 + 9 * lvl)) & 511) * 8
        level[0] = cast(u64, lvl)
        if slot[0] - m.ram_base >= m.ram_size or not pmp_allows(c, slot[0], 1, ACCESS_LOAD):
            return 1
        pte = get_bytes(m.ram + (slot[0] - m.ram_base), 8)
        if (pte & PTE_V) == 0 or (pte & (PTE_R | PTE_W)) == PTE_W or (pte >> 54) != 0:
            return 0
        if pte & (PTE_R | PTE_X):
            if ((pte >> 10) & ((cast(u64, 1) << (9 * lvl)) - 1)) != 0:
                return 0
            return pte
        if pte & (PTE_U | PTE_A | PTE_D):
            return 0
        table = ((pte >> 10) & PPN_MASK) << 12
        lvl = lvl - 1
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def leaf_address(pte: u64, level: u64, va: u64) -> u64:
    return (((pte >> 10) & PPN_MASK) << 12) | (va & ((cast(u64, 1) << (12 + 9 * level)) - 1))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def translate(c: pCpu, va: u64, access: cython.int) -> u64:
    """Return the physical address for an access; ``c.fault`` is set with cause and tval if there is none.

    Accessed and dirty bits are set, as the architecture lets an implementation do.
    """
    m: pShared = c.shared
    p: u64 = c.priv if access == ACCESS_FETCH else data_priv(c)
    pa: u64 = va
    pte: u64
    slot: u64 = 0
    level: u64 = 0
    c.fault = 0
    if p != 3 and (c.satp >> 60) != 0:
        if cast(u64, sext(va, 39)) != va:
            page_fault(c, va, access)
            return 0
        pte = walk(m, c, va, cython.address(slot), cython.address(level))
        if pte == 1:
            access_fault(c, va, access)
            return 0
        if pte == 0 or not leaf_allows(c, pte, p, access):
            page_fault(c, va, access)
            return 0
        if not mark_used(c, slot, pte, access):
            access_fault(c, va, access)
            return 0
        pa = leaf_address(pte, level, va)
        if level != 0:
            note_large(c, va, level)
    if not pmp_allows(c, pa, p, access):
        access_fault(c, va, access)
    return pa


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def mark_used(c: pCpu, slot: u64, pte: u64, access: cython.int) -> cython.bint:
    """Set the accessed bit, and for a store the dirty bit; False where the table is write-protected."""
    m: pShared = c.shared
    want: u64 = PTE_A | PTE_D if access == ACCESS_STORE else PTE_A
    if (pte & want) == want:
        return True
    if not pmp_allows(c, slot, 1, ACCESS_STORE):
        return False
    put_ram(c, slot - m.ram_base, 8, pte | want)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def note_large(c: pCpu, va: u64, level: u64) -> cython.void:
    """Remember that a superpage may be cached around an address."""
    size: u64 = cast(u64, 1) << (12 + 9 * level)
    low: u64 = va & ~(size - 1)
    if low < c.large_low:
        c.large_low = low
    if low + size > c.large_high or low + size == 0:
        c.large_high = low + size - 1 if low + size == 0 else low + size


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fill_data(c: pCpu, va: u64, pa: u64, access: cython.int) -> cython.void:
    """Enter a page of RAM for loads or stores; never for stores to a page with decoded code."""
    m: pShared = c.shared
    e: pTlb = c.tlb + ((va >> 12) & 511)
    tag: u64 = va & ~cast(u64, 0xFFF)
    c.n_fill += 1
    c.dirty |= cast(u64, 1) << c.data_mode
    if access == ACCESS_STORE:
        if e.load_tag != tag:
            e.load_tag = EMPTY
        e.store_tag = tag if m.code[(pa - m.ram_base) >> 12] == cython.NULL else EMPTY
    else:
        if e.store_tag != tag:
            e.store_tag = EMPTY
        e.load_tag = tag
    e.add = cast(u64, m.ram) + (pa & ~cast(u64, 0xFFF)) - m.ram_base - tag


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fill_code(c: pCpu, va: u64) -> pItlb:
    """Enter the page that code is fetched from; NULL: ``c.fault``, or no room for it now."""
    m: pShared = c.shared
    pa: u64 = translate(c, va, ACCESS_FETCH)
    it: pItlb = c.itlb + ((va >> 12) & 255)
    base: pInsn
    if c.fault != 0:
        return cython.NULL
    if pa - m.ram_base >= m.ram_size:
        access_fault(c, va, ACCESS_FETCH)
        return cython.NULL
    base = code_page(m, (pa - m.ram_base) >> 12)
    if base == cython.NULL:
        return cython.NULL
    c.n_code_fill += 1
    c.dirty |= cast(u64, 16) << c.code_mode
    it.base = base
    it.tag = va >> 12
    return it


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def look_up(c: pCpu, va: u64, pa: P_u64) -> cython.bint:
    """Translate for a debugger: as the hart would load, with any permission, and without any effect."""
    slot: u64 = 0
    level: u64 = 0
    pte: u64
    if c.priv == 3 or (c.satp >> 60) == 0:
        pa[0] = va
        return True
    if cast(u64, sext(va, 39)) != va:
        return False
    pte = walk(c.shared, c, va, cython.address(slot), cython.address(level))
    if pte <= 1:
        return False
    pa[0] = leaf_address(pte, level, va)
    return True
