"""Control and status registers as a table. Data only; ``gen`` makes the core's read and write functions from it.

The number says who may access it (bits 9..8: lowest privilege, bits 11..10 = 3: read-only), so no column does.
A write to a bit outside the write mask is ignored (WARL).

Source: RISC-V privileged architecture 20211203, tables 2.2-2.6; Sstc 1.0.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Csr(NamedTuple):
    """One register.

    Attributes:
        name: As assemblers write it.
        number: 12 bits.
        field: Member of ``Hart`` that holds it; empty: reads as ``value``.
        write: Bits that a write changes; with a writer: bits of the field that may be set at all.
        read: Bits that a read shows.
        value: What a register without a field reads as.
        guard: Function of ``core/csr.py`` that must allow the access, besides the privilege in the number.
        reader: Function of ``core/csr.py`` that reads it, instead of the field.
        writer: Function of ``core/csr.py`` that writes it, instead of the field.
    """

    name: str
    number: int
    field: str = ""
    write: int = 0
    read: int = (1 << 64) - 1
    value: int = 0
    guard: str = ""
    reader: str = ""
    writer: str = ""


ALL: Final = (1 << 64) - 1
MSTATUS: Final = 0x007E79AA  # SIE MIE SPIE MPIE SPP MPP FS MPRV SUM MXR TVM TW TSR
SSTATUS: Final = 0x80000003000DE762  # SIE SPIE SPP FS XS SUM MXR UXL SD
INTERRUPTS: Final = 0xAAA
SUPERVISOR_INTERRUPTS: Final = 0x222
DELEGABLE: Final = 0xB3FF  # every exception but ecall from machine mode
MISA: Final = 2 << 62 | 0x14112D  # 64 bits; A C D F I M S U
TIMER_ENABLE: Final = 1 << 63  # menvcfg.STCE: supervisor timer compare (Sstc)
FIOM: Final = 1
SATP: Final = 0x80000FFFFFFFFFFF  # Bare or Sv39, no address space identifiers
ADDRESS: Final = ALL - 1  # two-byte instructions: bit 0 is 0
VECTOR: Final = ALL - 2  # direct or vectored

# fmt: off
CSRS: Final = (
    Csr("fflags", 0x001, "fflags", 0x1F, guard="csr_float", writer="write_float"),
    Csr("frm", 0x002, "frm", 0x7, guard="csr_float", writer="write_float"),
    Csr("fcsr", 0x003, guard="csr_float", reader="read_fcsr", writer="write_float"),

    Csr("sstatus", 0x100, "mstatus", MSTATUS & SSTATUS, SSTATUS, reader="read_status", writer="write_status"),
    Csr("sie", 0x104, reader="read_sie", writer="write_sie"),
    Csr("stvec", 0x105, "stvec", VECTOR),
    Csr("scounteren", 0x106, "scounteren", 0x7),
    Csr("senvcfg", 0x10A, "senvcfg", FIOM),
    Csr("sscratch", 0x140, "sscratch", ALL),
    Csr("sepc", 0x141, "sepc", ADDRESS),
    Csr("scause", 0x142, "scause", ALL),
    Csr("stval", 0x143, "stval", ALL),
    Csr("sip", 0x144, reader="read_sip", writer="write_sip"),
    Csr("stimecmp", 0x14D, "stimecmp", ALL, guard="csr_timer"),
    Csr("satp", 0x180, "satp", SATP, guard="csr_satp", writer="write_satp"),

    Csr("mstatus", 0x300, "mstatus", MSTATUS, reader="read_status", writer="write_status"),
    Csr("misa", 0x301, value=MISA),
    Csr("medeleg", 0x302, "medeleg", DELEGABLE),
    Csr("mideleg", 0x303, "mideleg", SUPERVISOR_INTERRUPTS),
    Csr("mie", 0x304, "mie", INTERRUPTS),
    Csr("mtvec", 0x305, "mtvec", VECTOR),
    Csr("mcounteren", 0x306, "mcounteren", 0x7),
    Csr("menvcfg", 0x30A, "menvcfg", TIMER_ENABLE | FIOM),
    Csr("mcountinhibit", 0x320),
    *(Csr(f"mhpmevent{n}", 0x320 + n) for n in range(3, 32)),
    Csr("mscratch", 0x340, "mscratch", ALL),
    Csr("mepc", 0x341, "mepc", ADDRESS),
    Csr("mcause", 0x342, "mcause", ALL),
    Csr("mtval", 0x343, "mtval", ALL),
    Csr("mip", 0x344, "mip", SUPERVISOR_INTERRUPTS, reader="read_mip"),
    Csr("pmpcfg0", 0x3A0, reader="read_pmpcfg", writer="write_pmpcfg"),
    Csr("pmpcfg2", 0x3A2, reader="read_pmpcfg", writer="write_pmpcfg"),
    *(Csr(f"pmpaddr{n}", 0x3B0 + n, reader="read_pmpaddr", writer="write_pmpaddr") for n in range(16)),

    # Triggers: tselect cannot move and the only one is of type 0, "none here".
    Csr("tselect", 0x7A0),
    Csr("tdata1", 0x7A1),
    Csr("tdata2", 0x7A2),
    Csr("tdata3", 0x7A3),
    Csr("tinfo", 0x7A4, value=1),
    Csr("tcontrol", 0x7A5),

    Csr("mcycle", 0xB00, "mcycle", ALL, writer="write_counter"),
    Csr("minstret", 0xB02, "minstret", ALL, writer="write_counter"),
    *(Csr(f"mhpmcounter{n}", 0xB00 + n) for n in range(3, 32)),

    Csr("cycle", 0xC00, "mcycle", guard="csr_counter"),
    Csr("time", 0xC01, guard="csr_counter", reader="read_time"),
    Csr("instret", 0xC02, "minstret", guard="csr_counter"),
    *(Csr(f"hpmcounter{n}", 0xC00 + n, guard="csr_counter") for n in range(3, 32)),

    Csr("mvendorid", 0xF11),
    Csr("marchid", 0xF12),
    Csr("mimpid", 0xF13),
    Csr("mhartid", 0xF14, "index"),
    Csr("mconfigptr", 0xF15),
)
# fmt: on

# What is saved of a hart besides x, f, pmpcfg and pmpaddr: members of ``Hart`` that hold one number each.
HART_WORDS: Final = (
    "pc", "priv", "mstatus", "mtvec", "medeleg", "mideleg", "mie", "mip", "mepc", "mcause", "mtval", "mscratch",
    "mcounteren", "menvcfg", "mcycle", "minstret", "stvec", "sepc", "scause", "stval", "sscratch", "scounteren",
    "senvcfg", "satp", "stimecmp", "fflags", "frm", "reserved", "reserved_addr", "reserved_value", "wfi", "hsm", "sbi",
    "lines",
)  # fmt: skip
