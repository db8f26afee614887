"""The core as Python sees it."""

import cython
from cython import cast, sizeof
from cython.cimports.instar.cpu.rv64.core.types import *
from cython.cimports.cpython.buffer import PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cython.cimports.libc.stdlib import calloc, free

EXIT_LIMIT = RUN_LIMIT
EXIT_KICKED = RUN_KICKED
EXIT_IDLE = RUN_IDLE
EXIT_BREAK = RUN_BREAK
EXIT_WATCH = RUN_WATCH
EXIT_DEFERRED = RUN_DEFERRED

MAX_HARTS = 8
MAX_SHIFT = 10
PAGE = 4096
WORD = (1 << 64) - 1
EXTERNAL_LINES = (9, 11)


@cython.cfunc
@cython.exceptval(check=False)
def notice(shared: cython.p_void, gpa: u64, length: u64) -> cython.void:
    """Note that a device wrote guest memory; what is outside RAM is none of ours."""
    m: pShared = cast(pShared, shared)
    first: u64 = gpa if gpa > m.ram_base else m.ram_base
    last: u64 = gpa + length
    page: u64
    if last < gpa or last > m.ram_base + m.ram_size:
        last = m.ram_base + m.ram_size
    if last > first:
        page = (first - m.ram_base) >> 12
        device_wrote(m, page, ((last - 1 - m.ram_base) >> 12) - page + 1)


@cython.cclass
class Core:
    """All harts of a guest and what they share; see ``_core.pyi``."""

    m: pShared
    mmio_read: object
    mmio_write: object
    sbi: object
    error: object
    busy: cython.bint

    def __cinit__(self, **_options):
        i: cython.int
        m: pShared = cast(pShared, calloc(1, sizeof(Shared)))
        self.m = m
        if m == cython.NULL:
            raise MemoryError("no memory for the core")
        for i in range(8):
            m.harts[i] = cast(pCpu, calloc(1, sizeof(Hart)))
            if m.harts[i] == cython.NULL:
                raise MemoryError("no memory for the harts")
        m.arena = cast(pCode, calloc(ARENA_PAGES, sizeof(CodePage)))
        if m.arena == cython.NULL:
            raise MemoryError("no address space for decoded code")

    def __init__(
        self,
        *,
        ram_addr,
        ram_base,
        ram_size,
        harts,
        bus,
        icount_shift=-1,
        flush_everything=False,
        sstc=True,
        defers=False,
    ):
        i: u64
        m: pShared = self.m
        if m.ram != cython.NULL:
            raise RuntimeError("a core is initialized once; it is as it was")
        check_arguments(ram_addr, ram_base, ram_size, harts, icount_shift)
        m.code = cast(ppCode, calloc(ram_size // PAGE, sizeof(pCode)))
        m.stale = cast(P_u8, calloc(ram_size // PAGE, 1))
        if m.code == cython.NULL or m.stale == cython.NULL:
            raise MemoryError(f"no memory for the page table of {ram_size} bytes of RAM")
        m.ram = cast(P_u8, cast(u64, ram_addr))
        m.ram_base = ram_base
        m.ram_size = ram_size
        m.icount_shift = icount_shift
        m.flush_everything = 1 if flush_everything else 0
        m.sstc = 1 if sstc else 0
        m.defers = 1 if defers else 0
        m.break_at = EMPTY
        m.watch = EMPTY
        m.core = cast(cython.p_void, self)
        self.mmio_read = bus.mmio_read
        self.mmio_write = bus.mmio_write
        self.sbi = bus.sbi
        m.count = harts
        for i in range(m.count):
            m.harts[i].shared = m
            m.harts[i].index = i
        self.reset()

    def __dealloc__(self):
        i: cython.int
        if self.m == cython.NULL:
            return
        for i in range(8):
            free(self.m.harts[i])
        free(self.m.arena)
        free(self.m.code)
        free(self.m.stale)
        free(self.m)

    # ---- running

    def run(self, limit):
        m: pShared = self.m
        end: u64 = min(m.icount + max(limit, 0), WORD)
        why: cython.int
        self.check_parked()
        self.busy = True
        m.deferred = 0
        try:
            with cython.nogil:
                why = run_harts(m, end)
        finally:
            self.busy = False
        if m.raised != 0:
            m.raised = 0
            error, self.error = self.error, None
            raise error
        return why

    def kick(self):
        atomic_store(cython.address(self.m.kicked), 1)

    def set_break(self, icount):
        self.m.break_at = EMPTY if icount < 0 else icount

    def set_watch(self, gpa):
        i: u64
        self.check_parked()
        self.m.watch = EMPTY if gpa < 0 else gpa & ~7
        self.m.watch_hit = 0
        for i in range(self.m.count):
            flush_tlb(self.m.harts[i])

    @property
    def icount(self):
        return count_now(self.m)

    @property
    def harts(self):
        return self.m.count

    # ---- from devices

    def set_irq(self, hart, bit, level):
        c: pCpu = self.hart(hart)
        if bit not in EXTERNAL_LINES:
            raise ValueError(f"{bit} is not an external interrupt (9 or 11); nothing was changed")
        mask: u64 = cast(u64, 1) << cast(cython.int, bit)
        if level:
            atomic_or(cython.address(c.lines), mask)
        else:
            atomic_and(cython.address(c.lines), ~mask)

    def dma_written(self, gpa, length):
        notice(cast(cython.p_void, self.m), gpa & WORD, length)

    @property
    def write_notice(self):
        return notice_capsule(cast(cython.p_void, notice), cast(cython.p_void, self.m))

    # ---- time

    def now_ns(self):
        return virtual_ns(self.m)

    def clock_start(self):
        m: pShared = self.m
        if m.icount_shift < 0 and m.clock_running == 0:
            m.clock_base -= host_ns()
            m.clock_running = 1

    def clock_stop(self):
        m: pShared = self.m
        if m.icount_shift < 0 and m.clock_running != 0:
            m.clock_base += host_ns()
            m.clock_running = 0

    def warp_to(self, ns):
        self.check_parked()
        if ns > virtual_ns(self.m):
            set_virtual_ns(self.m, ns)

    def deadline_ns(self):
        i: u64
        found: u64 = EMPTY
        c: pCpu
        for i in range(self.m.count):
            c = self.m.harts[i]
            if c.hsm != HSM_STOPPED and (c.mie & 0x20) != 0 and deadline(c) < found:
                found = deadline(c)
        return -1 if found == EMPTY else found

    # ---- state

    def start_hart(self, hart, pc, a0, a1):
        c: pCpu = self.hart(hart)
        self.check_parked()
        start_supervisor(c, pc & WORD, a0 & WORD, a1 & WORD)

    def reset(self):
        i: u64
        self.check_parked()
        for i in range(self.m.count):
            reset_hart(self.m.harts[i])
        self.m.current = 0
        self.m.quantum = QUANTUM
        drop_all_code(self.m)

    def save_hart(self, hart):
        c: pCpu = self.hart(hart)
        k: cython.int
        words = {name: hart_word(c, k)[0] for k, name in enumerate(HART_WORDS)}
        return {
            "x": [c.x[k] for k in range(32)],
            **words,
            "f": [c.f[k] for k in range(32)],
            "pmpcfg": [c.pmpcfg[k] for k in range(2)],
            "pmpaddr": [c.pmpaddr[k] for k in range(16)],
        }

    def load_hart(self, hart, fields):
        c: pCpu = self.hart(hart)
        k: cython.int
        self.check_parked()
        for name, value in check_fields(fields).items():
            if name == "x":
                for k in range(32):
                    c.x[k] = value[k]
            elif name == "f":
                for k in range(32):
                    c.f[k] = value[k]
            elif name == "pmpcfg":
                for k in range(2):
                    c.pmpcfg[k] = value[k]
            elif name == "pmpaddr":
                for k in range(16):
                    c.pmpaddr[k] = value[k]
            else:
                k = HART_WORDS.index(name)
                hart_word(c, k)[0] = value
        settle(c)

    def save_shared(self):
        m: pShared = self.m
        return {
            "icount": m.icount,
            "clock_ns": virtual_ns(m),
            "turn": m.current,
            "turn_left": m.quantum,
        }

    def load_shared(self, fields):
        m: pShared = self.m
        self.check_parked()
        check_shared(fields, m.count)
        m.icount = fields["icount"]
        set_virtual_ns(m, fields["clock_ns"])
        m.current = fields["turn"]
        m.quantum = fields["turn_left"]

    def translate(self, hart, va):
        pa: u64 = 0
        if look_up(self.hart(hart), va & WORD, cython.address(pa)):
            return pa
        return -1

    def stats(self):
        m: pShared = self.m
        i: u64
        c: pCpu
        names = ("sfence", "trap", "irq", "tlb_fill", "code_tlb_fill", "slow_access")
        sums = [0] * len(names)
        for i in range(m.count):
            c = m.harts[i]
            found = (c.n_sfence, c.n_trap, c.n_irq, c.n_fill, c.n_code_fill, c.n_slow)
            sums = [a + b for a, b in zip(sums, found)]
        return {
            **dict(zip(names, sums)),
            "decode": m.n_decode,
            "code_store": m.n_code_store,
            "code_page_drop": m.n_retire,
            "code_pages": m.arena_used,
            "mmio": m.n_mmio,
        }

    # ---- checks

    @cython.cfunc
    def hart(self, index) -> pCpu:
        if not 0 <= index < self.m.count:
            raise ValueError(f"hart {index} is not in 0..{self.m.count - 1}; nothing was changed")
        return self.m.harts[cast(cython.int, index)]

    @cython.cfunc
    def check_parked(self):
        if self.m.ram == cython.NULL:
            raise RuntimeError("the core was never initialized")
        if self.busy:
            raise RuntimeError("the core is running; nothing was changed")


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def settle(c: pCpu) -> cython.void:
    """Make what was loaded something that a hart can be in, and drop what was cached."""
    csr_clean(c)
    c.x[0] = 0
    c.lines &= 0xA00
    c.pc &= ~cast(u64, 1)
    c.dirty = 0xFF
    pmp_update(c)
    select_tlbs(c)


@cython.cfunc
def check_arguments(ram_addr, ram_base, ram_size, harts, icount_shift):
    if ram_size <= 0 or ram_size % PAGE or ram_base % PAGE or ram_base + ram_size > 1 << 56:
        raise ValueError(
            f"RAM of {ram_size} bytes at {ram_base:#x} is not whole pages below 2**56; no core was made"
        )
    if ram_addr <= 0 or ram_addr % PAGE:
        raise ValueError(f"RAM at host address {ram_addr:#x} is not a page; no core was made")
    if not 1 <= harts <= MAX_HARTS:
        raise ValueError(f"{harts} harts: not in 1..{MAX_HARTS}; no core was made")
    if not -1 <= icount_shift <= MAX_SHIFT:
        raise ValueError(f"icount shift {icount_shift}: not in -1..{MAX_SHIFT}; no core was made")


LENGTHS = {"x": 32, "f": 32, "pmpcfg": 2, "pmpaddr": 16}
CHOICES = {"priv": (0, 1, 3), "hsm": (0, 1, 4), "wfi": (0, 1), "sbi": (0, 1), "reserved": (0, 1)}


@cython.cfunc
def check_fields(fields):
    """Return the fields, checked before the first one is loaded."""
    for name, value in fields.items():
        if name in LENGTHS:
            if len(value) != LENGTHS[name] or not all(0 <= item <= WORD for item in value):
                raise ValueError(
                    f"{name}: {LENGTHS[name]} numbers of 64 bits are needed; nothing was loaded"
                )
        elif name not in HART_WORDS or not 0 <= value <= WORD:
            raise ValueError(f"{name}: {value!r} is not a register's value; nothing was loaded")
        elif name in CHOICES and value not in CHOICES[name]:
            raise ValueError(f"{name}: {value} is not one of {CHOICES[name]}; nothing was loaded")
    if (fields.get("mstatus", 0) >> 11) & 3 == 2:
        raise ValueError("mstatus.MPP: 2 is no privilege; nothing was loaded")
    return fields


@cython.cfunc
def check_shared(fields, harts):
    for name, low, high in (
        ("icount", 0, WORD),
        ("clock_ns", 0, WORD),
        ("turn", 0, harts - 1),
        ("turn_left", 0, QUANTUM),
    ):
        if not low <= fields[name] <= high:
            raise ValueError(f"{name}: {fields[name]} is not in {low}..{high}; nothing was loaded")


def address_of(buffer):
    """Return the host address of a writable buffer's first byte; see ``_core.pyi``."""
    view: Py_buffer
    PyObject_GetBuffer(buffer, cython.address(view), PyBUF_WRITABLE)
    address = cast(u64, view.buf)
    PyBuffer_Release(cython.address(view))
    return address
