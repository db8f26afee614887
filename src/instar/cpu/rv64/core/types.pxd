# Types of the core, shared by all its parts. A generator joins core/*.pxd and core/*.py into one module, `_core`.
from libc.stdint cimport uint64_t, int64_t, uint32_t, int32_t, uint16_t, int16_t, uint8_t, int8_t

ctypedef uint64_t u64
ctypedef int64_t i64
ctypedef uint32_t u32
ctypedef int32_t i32
ctypedef uint16_t u16
ctypedef int16_t i16
ctypedef uint8_t u8
ctypedef int8_t i8

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #include <time.h>

    /* The words of the effects in isa.py. */
    #define s64(v) ((int64_t)(v))
    #define sx32(v) ((uint64_t)(int64_t)(int32_t)(v))
    #define zx32(v) ((uint64_t)(uint32_t)(v))
    static inline uint64_t mulhu(uint64_t a, uint64_t b) { return (uint64_t)(((unsigned __int128)a * b) >> 64); }
    static inline uint64_t mulh(uint64_t a, uint64_t b) { return (uint64_t)(((__int128)s64(a) * s64(b)) >> 64); }
    static inline uint64_t mulhsu(uint64_t a, uint64_t b) { return mulhu(a, b) - (s64(a) < 0 ? b : 0); }
    static inline uint64_t divu(uint64_t a, uint64_t b) { return b ? a / b : ~(uint64_t)0; }
    static inline uint64_t remu(uint64_t a, uint64_t b) { return b ? a % b : a; }
    /* Dividing by -1 is done by hand: the smallest number by -1 traps on some hosts. */
    static inline uint64_t sdiv(uint64_t a, uint64_t b) {
        return b == 0 ? ~(uint64_t)0 : b == ~(uint64_t)0 ? 0 - a : (uint64_t)(s64(a) / s64(b));
    }
    static inline uint64_t srem(uint64_t a, uint64_t b) {
        return b == 0 ? a : b == ~(uint64_t)0 ? 0 : (uint64_t)(s64(a) % s64(b));
    }
    """
    i64 s64(u64) noexcept nogil
    u64 sx32(u64) noexcept nogil
    u64 zx32(u64) noexcept nogil
    u64 mulhu(u64, u64) noexcept nogil
    u64 mulh(u64, u64) noexcept nogil
    u64 mulhsu(u64, u64) noexcept nogil
    u64 sdiv(u64, u64) noexcept nogil
    u64 divu(u64, u64) noexcept nogil
    u64 srem(u64, u64) noexcept nogil
    u64 remu(u64, u64) noexcept nogil

cdef extern from *:
    """
    /* Words that other threads write, and order between their accesses and the harts'. Not named atomic_*: Cython
       brings in <stdatomic.h>, whose macros of those names clang refuses for plain words. */
    #define word_load(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
    #define word_store(p, v) __atomic_store_n(p, v, __ATOMIC_SEQ_CST)
    #define word_swap(p, v) __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST)
    #define word_or(p, v) __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST)
    #define word_and(p, v) __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST)
    #define atomic_load8(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
    #define atomic_store8(p, v) __atomic_store_n(p, v, __ATOMIC_SEQ_CST)
    #define full_fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
    #define light_fence() __atomic_thread_fence(__ATOMIC_ACQ_REL)
    static inline uint64_t host_ns(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    }
    /* Guest memory at any alignment, little-endian (so is the host: checked when the core is built). */
    #if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "the software CPU needs a little-endian host"
    #endif
    static inline uint64_t get_bytes(const uint8_t *p, int size) {
        uint64_t v = 0;
        switch (size) {
        case 1: return *p;
        case 2: { uint16_t w; memcpy(&w, p, 2); return w; }
        case 4: { uint32_t w; memcpy(&w, p, 4); return w; }
        default: memcpy(&v, p, 8); return v;
        }
    }
    /* Only put() in core/code.py writes operations: a jump through their table needs no check of its bounds. */
    #define unreachable() __builtin_unreachable()
    /* The low bits of v as a signed number. */
    static inline int64_t sext(uint64_t v, int bits) { return (int64_t)(v << (64 - bits)) >> (64 - bits); }
    static inline void put_bytes(uint8_t *p, int size, uint64_t v) {
        switch (size) {
        case 1: *p = (uint8_t)v; break;
        case 2: { uint16_t w = (uint16_t)v; memcpy(p, &w, 2); break; }
        case 4: { uint32_t w = (uint32_t)v; memcpy(p, &w, 4); break; }
        default: memcpy(p, &v, 8);
        }
    }
    """
    u64 atomic_load "word_load"(u64*) noexcept nogil
    void atomic_store "word_store"(u64*, u64) noexcept nogil
    u64 atomic_swap "word_swap"(u64*, u64) noexcept nogil
    u64 atomic_or "word_or"(u64*, u64) noexcept nogil
    u64 atomic_and "word_and"(u64*, u64) noexcept nogil
    u8 atomic_load8(u8*) noexcept nogil
    void atomic_store8(u8*, u8) noexcept nogil
    void full_fence() noexcept nogil
    void light_fence() noexcept nogil
    u64 host_ns() noexcept nogil
    u64 get_bytes(const u8*, int) noexcept nogil
    void put_bytes(u8*, int, u64) noexcept nogil
    void *memset(void*, int, size_t) noexcept nogil
    i64 sext(u64, int) noexcept nogil
    void unreachable() noexcept nogil

cdef extern from *:
    """
    /* A function for other compiled parts to call, and what it is called with. The name is what it is like. */
    #define NOTICE_KIND "void (void *, uint64_t gpa, uint64_t length)"
    static inline PyObject *notice_capsule(void *function, void *context) {
        PyObject *made = PyCapsule_New(function, NOTICE_KIND, NULL);
        if (made != NULL && PyCapsule_SetContext(made, context) != 0) Py_CLEAR(made);
        return made;
    }
    """
    object notice_capsule(void *, void *)

# One decoded instruction: small, because a page of them has to fit in the host's caches. `op` 0 is "not decoded yet", so
# that zeroed memory is a valid page of them.
ctypedef struct Insn:
    u8 op
    u8 rd       # 32 instead of 0: a register that nobody reads
    u8 rs1
    u8 rs2
    i32 imm     # of system and floating-point instructions and illegal ones: the instruction word

# A page of decoded instructions, one for each halfword; then a sentinel that goes to the next page.
ctypedef struct CodePage:
    Insn insns[2050]
    u64 number      # of the RAM page it decodes
    u64 stores      # into it since it was decoded
    u64 next_free   # address of the next free page, 0 at the end

# Data TLB: virtual page allowed for loads and for stores (a page with decoded code never is: its stores are seen).
ctypedef struct Tlb:
    u64 load_tag
    u64 store_tag
    u64 add         # host address = virtual address + add
    u64 pad

ctypedef struct Itlb:
    u64 tag
    Insn *base

ctypedef struct Shared

ctypedef struct Hart:
    u64 x[33]       # x[0] is 0; x[32] takes what is written to register 0
    u64 f[32]       # single precision is NaN-boxed
    u64 pc
    # The place in decoded code: pc = virtual address of base + 2 * (ip - base). Only valid inside run_code.
    u64 page_va
    Insn *base
    Insn *ip
    Tlb *tlb
    Itlb *itlb
    i64 left        # instructions left of the slice at the last slow path, with the one that took it
    i64 cause       # why run_code ended: exception cause, CAUSE_SYSTEM, or -1
    u64 tval
    u64 fault       # the last slow access failed; cause and tval say why
    u64 leave       # end run_code after this instruction
    u64 priv        # 0 user, 1 supervisor, 3 machine
    u64 mstatus, mtvec, medeleg, mideleg, mie, mip, mepc, mcause, mtval, mscratch, mcounteren, menvcfg
    u64 stvec, sepc, scause, stval, sscratch, scounteren, satp, stimecmp, senvcfg
    u64 mcycle, minstret
    u64 pmpcfg[2]
    u64 pmpaddr[16]
    u64 pmp_low[16]     # what they say, as ranges of physical addresses [low, high); empty if off
    u64 pmp_high[16]
    u64 frm, fflags
    u64 reserved, reserved_addr, reserved_value     # LR/SC: guest physical address and the value seen
    u64 wfi
    u64 hsm         # SBI hart state: 0 started, 1 stopped, 4 suspended
    u64 sbi         # ecall from supervisor mode goes to the built-in SBI
    u64 lines       # external interrupt lines, bits as in mip; atomic
    u64 index
    Shared *shared
    u64 data_mode, code_mode    # which TLBs are in use
    u64 dirty       # TLBs with entries: bits 0-3 data, 4-7 code
    u64 large_low, large_high   # virtual range with entries from superpages
    # An instruction that crosses into the next page, as decoded last.
    Insn *cross_ip
    u64 cross_va, cross_epoch
    Insn cross[4]
    u64 n_sfence, n_trap, n_irq, n_fill, n_code_fill, n_slow
    Tlb tlbs[4][512]
    Itlb itlbs[4][256]

ctypedef struct Shared:
    Hart *harts[8]
    u64 count
    u8 *ram
    u64 ram_base, ram_size
    CodePage **code         # by RAM page; NULL: nothing decoded
    u8 *stale               # by RAM page: written by a device since it was decoded
    CodePage *arena
    u64 arena_used          # pages of the arena that are or were in use
    u64 arena_touched       # pages of the arena that have ever been; the others are still zero
    u64 arena_full          # drop all decoded code at the next boundary
    CodePage *free_pages    # once used, now free; linked by next_free
    u64 epoch               # changes when decoded code does
    u64 icount              # instructions and traps, all harts
    u64 slice               # length of the slice that runs now, 0 outside
    u64 current, quantum    # whose turn, and what is left of it
    i64 icount_shift        # -1: real time
    u64 clock_base          # virtual time = this (+ host_ns() while running, or + icount << shift)
    u64 clock_running
    u64 break_at
    u64 kicked              # atomic
    u64 code_written        # atomic: a device wrote pages with decoded code
    u64 flush_everything
    u64 sstc
    u64 watch               # address of a doubleword whose non-zero store ends run(); all ones: none
    u64 watch_hit
    u64 defers      # accesses outside the core end the run before the instruction
    u64 deferred    # ... and one did
    void *core              # the Core object (borrowed)
    u64 raised              # a call into Python raised; run() hands it on
    u64 n_decode, n_code_store, n_retire, n_mmio

ctypedef Hart *pCpu
ctypedef Shared *pShared
ctypedef Insn *pInsn
ctypedef CodePage *pCode
ctypedef CodePage **ppCode
ctypedef Tlb *pTlb
ctypedef Itlb *pItlb
ctypedef u8 *P_u8
ctypedef i8 *P_i8
ctypedef u16 *P_u16
ctypedef i16 *P_i16
ctypedef u32 *P_u32
ctypedef i32 *P_i32
ctypedef u64 *P_u64
ctypedef float *P_f32
ctypedef double *P_f64

cdef enum:  # what an access is for
    ACCESS_LOAD = 0
    ACCESS_STORE = 1
    ACCESS_FETCH = 2

cdef enum:  # why run_code ended, besides the exception causes
    CAUSE_NONE = -1
    CAUSE_SYSTEM = 100
    CAUSE_DEFERRED = 101    # an access that somebody else will make: the instruction was not begun

cdef enum:  # page table entries
    PTE_V = 1
    PTE_R = 2
    PTE_W = 4
    PTE_X = 8
    PTE_U = 16
    PTE_A = 64
    PTE_D = 128

cdef extern from *:
    """
    #define PPN_MASK UINT64_C(0xFFFFFFFFFFF)
    """
    u64 PPN_MASK

cdef extern from *:
    """
    #define FS_DIRTY UINT64_C(0x6000)
    #define STATUS_XL UINT64_C(0xA00000000)
    #define MSTATUS_WRITE UINT64_C(0x7E79AA)
    #define SSTATUS_WRITE UINT64_C(0xDE762)
    #define SATP_WRITE UINT64_C(0x80000FFFFFFFFFFF)
    #define EMPTY UINT64_C(0xFFFFFFFFFFFFFFFF)
    """
    u64 FS_DIRTY, STATUS_XL, MSTATUS_WRITE, SSTATUS_WRITE, SATP_WRITE
    u64 EMPTY   # no page's tag; all ones

cdef enum:  # SBI hart states
    HSM_STARTED = 0
    HSM_STOPPED = 1
    HSM_SUSPENDED = 4

cdef enum:  # SBI errors
    SBI_FAILED = -1
    SBI_NOT_SUPPORTED = -2
    SBI_INVALID_PARAM = -3
    SBI_INVALID_ADDRESS = -5
    SBI_ALREADY_AVAILABLE = -6

cdef enum:  # SBI extensions
    SBI_BASE = 0x10
    SBI_TIME = 0x54494D45
    SBI_IPI = 0x735049
    SBI_RFENCE = 0x52464E43
    SBI_HSM = 0x48534D
    SBI_SRST = 0x53525354
    SBI_DBCN = 0x4442434E

cdef enum:  # what run() returns; to Python they are EXIT_*
    RUN_LIMIT = 0
    RUN_KICKED = 1
    RUN_IDLE = 2
    RUN_BREAK = 3
    RUN_WATCH = 4
    RUN_DEFERRED = 5
