"""Names and fields of operands, for the assembler and the disassembler.

Source: RISC-V assembly programmer's manual; privileged architecture 20211203, chapter 2 (CSR addresses).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from instar.cpu.rv64.isa import FIELDS, Field, Row

_X: Final = """
zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6
"""
_F: Final = """
ft0 ft1 ft2 ft3 ft4 ft5 ft6 ft7 fs0 fs1 fa0 fa1 fa2 fa3 fa4 fa5 fa6 fa7
fs2 fs3 fs4 fs5 fs6 fs7 fs8 fs9 fs10 fs11 ft8 ft9 ft10 ft11
"""
X_NAMES: Final = tuple(_X.split())
F_NAMES: Final = tuple(_F.split())
REGISTERS: Final[dict[str, dict[str, int]]] = {
    "x": {name: i for i, name in enumerate(X_NAMES)} | {f"x{i}": i for i in range(32)} | {"fp": 8},
    "f": {name: i for i, name in enumerate(F_NAMES)} | {f"f{i}": i for i in range(32)},
}
ROUNDING: Final = {"rne": 0, "rtz": 1, "rdn": 2, "rup": 3, "rmm": 4, "dyn": 7}
_EXACT: Final = frozenset(("fcvt.d.s", "fcvt.d.w", "fcvt.d.wu"))  # never round
# Suffixes of atomic instructions: acquire is bit 26, release bit 25.
SUFFIXES: Final = {".aqrl": 3 << 25, ".aq": 1 << 26, ".rl": 1 << 25, "": 0}

_SINGLE_CSRS: Final = """
fflags 001 frm 002 fcsr 003 cycle c00 time c01 instret c02
sstatus 100 sie 104 stvec 105 scounteren 106 senvcfg 10a sscratch 140 sepc 141 scause 142 stval 143 sip 144
stimecmp 14d satp 180
mvendorid f11 marchid f12 mimpid f13 mhartid f14 mconfigptr f15
mstatus 300 misa 301 medeleg 302 mideleg 303 mie 304 mtvec 305 mcounteren 306 menvcfg 30a mcountinhibit 320
mscratch 340 mepc 341 mcause 342 mtval 343 mip 344 mtinst 34a mtval2 34b mseccfg 747 mcycle b00 minstret b02
tselect 7a0 tdata1 7a1 tdata2 7a2 tdata3 7a3 tinfo 7a4 tcontrol 7a5 mcontext 7a8 scontext 5a8
dcsr 7b0 dpc 7b1 dscratch0 7b2 dscratch1 7b3
"""


def _csr_table() -> dict[str, int]:
    words = _SINGLE_CSRS.split()
    table = {name: int(number, 16) for name, number in zip(words[::2], words[1::2], strict=True)}
    table |= {f"pmpcfg{i}": 0x3A0 + i for i in range(0, 16, 2)}
    table |= {f"pmpaddr{i}": 0x3B0 + i for i in range(64)}
    for i in range(3, 32):
        table[f"hpmcounter{i}"] = 0xC00 + i
        table[f"mhpmcounter{i}"] = 0xB00 + i
        table[f"mhpmevent{i}"] = 0x320 + i
    return table


CSRS: Final = _csr_table()
CSR_NAMES: Final = {number: name for name, number in CSRS.items()}


class Slot(NamedTuple):
    """One operand as it is written: ``outer``, ``outer(inner)`` or ``(inner)``.

    Attributes:
        outer: Name of the field or implied register; empty if there is none.
        inner: Name between parentheses; empty if there are none.
    """

    outer: str
    inner: str


_SLOT: Final = re.compile(r"(\w*)(?:\((\w+)\))?")


def slots(syntax: str) -> tuple[Slot, ...]:
    """Split the syntax of a table row into its operands."""
    found = (_SLOT.fullmatch(part.strip()) for part in syntax.split(",") if part.strip())
    return tuple(Slot(match[1], match[2] or "") for match in found if match)


def row_fields(row: Row) -> dict[str, Field]:
    """Return the fields among a row's operands (implied registers are not fields)."""
    names = (name for slot in slots(row.syntax) for name in slot if name)
    return {name: FIELDS[name] for name in names if name in FIELDS}


def limits(field: Field) -> tuple[int, int, int]:
    """Return the smallest and the largest value a field can hold, and the step between values."""
    bits = max(low + width for _, width, low in field.parts)
    step = 1 << min(low for _, _, low in field.parts)
    if field.signed:
        return -(1 << (bits - 1)), (1 << (bits - 1)) - step, step
    return field.base, field.base + (1 << bits) - step, step


def insert(field: Field, value: int) -> int:
    """Return the bits of an instruction word that hold ``value`` (within :func:`limits`)."""
    value -= field.base
    word = 0
    for at, width, low in field.parts:
        word |= ((value >> low) & ((1 << width) - 1)) << at
    return word


def extract(field: Field, word: int) -> int:
    """Return the value a field has in an instruction word."""
    value = 0
    for at, width, low in field.parts:
        value |= ((word >> at) & ((1 << width) - 1)) << low
    bits = max(low + width for _, width, low in field.parts)
    if field.signed and value >> (bits - 1):
        value -= 1 << bits
    return value + field.base


def default_rounding(name: str) -> int:
    """Return the rounding mode of an instruction that is written without one."""
    return ROUNDING["rne" if name in _EXACT else "dyn"]


def matches(row: Row, word: int) -> bool:
    """Say whether a word is the row's instruction."""
    if word & row.mask != row.match:
        return False
    return all(extract(FIELDS[name], word) for name in row.nonzero)
