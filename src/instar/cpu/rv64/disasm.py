"""Disassembler: one instruction word to text, from the instruction table.

The text is what GNU objdump prints, and :func:`instar.cpu.rv64.asm.assemble` reads it back to the same word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from instar.cpu.rv64.isa import COMPRESSED, FIELDS, WORDS
from instar.cpu.rv64.operands import (
    CSR_NAMES,
    F_NAMES,
    ROUNDING,
    SUFFIXES,
    X_NAMES,
    default_rounding,
    extract,
    matches,
    row_fields,
    slots,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from instar.cpu.rv64.isa import Row

_MASK64: Final = (1 << 64) - 1
_MODE_NAMES: Final = {number: name for name, number in ROUNDING.items()}
_BY_OPCODE: Final[dict[int, list[Row]]] = {}
for _row in WORDS:
    _BY_OPCODE.setdefault(_row.match & 0x7F, []).append(_row)

# (instruction, what must hold of its operands, how it reads then); the first that holds is taken.
_ALIASES: Final[tuple[tuple[str, str, str], ...]] = (
    ("addi", "rd=0 rs1=0 imm12=0", "nop"),
    ("addi", "rs1=0", "li rd, imm12"),
    ("addi", "imm12=0", "mv rd, rs1"),
    ("addiw", "imm12=0", "sext.w rd, rs1"),
    ("xori", "imm12=-1", "not rd, rs1"),
    ("sltiu", "imm12=1", "seqz rd, rs1"),
    ("sub", "rs1=0", "neg rd, rs2"),
    ("subw", "rs1=0", "negw rd, rs2"),
    ("sltu", "rs1=0", "snez rd, rs2"),
    ("slt", "rs2=0", "sltz rd, rs1"),
    ("slt", "rs1=0", "sgtz rd, rs2"),
    ("jal", "rd=0", "j jimm21"),
    ("jal", "rd=1", "jal jimm21"),
    ("jalr", "rd=0 rs1=1 imm12=0", "ret"),
    ("jalr", "rd=0 imm12=0", "jr rs1"),
    ("jalr", "rd=1 imm12=0", "jalr rs1"),
    ("beq", "rs2=0", "beqz rs1, bimm13"),
    ("bne", "rs2=0", "bnez rs1, bimm13"),
    ("bge", "rs1=0", "blez rs2, bimm13"),
    ("bge", "rs2=0", "bgez rs1, bimm13"),
    ("blt", "rs2=0", "bltz rs1, bimm13"),
    ("blt", "rs1=0", "bgtz rs2, bimm13"),
    ("csrrs", "rs1=0", "csrr rd, csr"),
    ("csrrw", "rd=0", "csrw csr, rs1"),
    ("csrrs", "rd=0", "csrs csr, rs1"),
    ("csrrc", "rd=0", "csrc csr, rs1"),
    ("csrrwi", "rd=0", "csrwi csr, zimm"),
    ("csrrsi", "rd=0", "csrsi csr, zimm"),
    ("csrrci", "rd=0", "csrci csr, zimm"),
    ("fence", "pred=15 succ=15", "fence"),
    ("sfence.vma", "rs1=0 rs2=0", "sfence.vma"),
    ("sfence.vma", "rs2=0", "sfence.vma rs1"),
    ("fsgnj.s", "fs1=fs2", "fmv.s fd, fs1"),
    ("fsgnjn.s", "fs1=fs2", "fneg.s fd, fs1"),
    ("fsgnjx.s", "fs1=fs2", "fabs.s fd, fs1"),
    ("fsgnj.d", "fs1=fs2", "fmv.d fd, fs1"),
    ("fsgnjn.d", "fs1=fs2", "fneg.d fd, fs1"),
    ("fsgnjx.d", "fs1=fs2", "fabs.d fd, fs1"),
)


def instruction_length(word: int) -> int:
    """Return the length in bytes (2 or 4) of the instruction that begins with these bits."""
    return 4 if word & 3 == 3 else 2


def find_row(word: int) -> Row | None:
    """Return the table's row for an instruction word, or None if there is none."""
    if instruction_length(word) == 4:
        rows = _BY_OPCODE.get(word & 0x7F, [])
    else:
        rows, word = list(COMPRESSED), word & 0xFFFF
    return next((row for row in rows if matches(row, word)), None)


def _fence_set(bits: int) -> str:
    letters = zip("iorw", (8, 4, 2, 1), strict=True)
    return "".join(letter for letter, bit in letters if bits & bit) or "0"


# How a value of each kind of field is written; `offset` needs the address too.
_WRITERS: Final[dict[str, Callable[[int], str]]] = {
    "x": lambda value: X_NAMES[value],
    "f": lambda value: F_NAMES[value],
    "csr": lambda value: CSR_NAMES.get(value, f"{value:#x}"),
    "rm": lambda value: _MODE_NAMES.get(value, f"{value:#x}"),
    "fence": _fence_set,
    "upper": lambda value: f"{(value >> 12) & 0xFFFFF:#x}",
    "shamt": lambda value: f"{value:#x}",
    "imm": str,
}


def _operand(name: str, values: dict[str, int], pc: int) -> str:
    """Return the text of one operand; an implied register is its own text."""
    if name not in values:
        return name
    kind = FIELDS[name].kind
    if kind == "offset":
        return f"{(pc + values[name]) & _MASK64:#x}"
    return _WRITERS[kind](values[name])


def _operands(syntax: str, values: dict[str, int], pc: int) -> str:
    parts: list[str] = []
    for slot in slots(syntax):
        text = _operand(slot.outer, values, pc)
        parts.append(f"{text}({_operand(slot.inner, values, pc)})" if slot.inner else text)
    return ",".join(parts)


def _holds(condition: str, values: dict[str, int]) -> bool:
    pairs = (term.split("=") for term in condition.split())
    return all(values[a] == (values[b] if b in values else int(b)) for a, b in pairs)


def _suffix(row: Row, word: int) -> str:
    """Return .aq, .rl or .aqrl of an atomic instruction."""
    ordering = word & SUFFIXES[".aqrl"] if row.ext == "a" else 0
    return next(name for name, bits in SUFFIXES.items() if bits == ordering)


def disassemble(word: int, pc: int, *, aliases: bool = True) -> str:
    """Return one instruction as text, ``mnemonic operands``.

    Args:
        word: The instruction; of a compressed one the low 16 bits count.
        pc: Its address: branch targets are shown as addresses.
        aliases: Use pseudo-instructions (``ret``, ``mv``).

    Returns:
        The text; ``.word`` or ``.half`` with the number when no instruction is encoded so.

    Source: own; the syntax of GNU binutils.
    """
    row = find_row(word)
    if row is None:
        wide = instruction_length(word) == 4
        return f".word   {word & 0xFFFFFFFF:#010x}" if wide else f".half   {word & 0xFFFF:#06x}"
    values = {name: extract(field, word) for name, field in row_fields(row).items()}
    name, syntax = row.name + _suffix(row, word), row.syntax
    if values.get("rm") == default_rounding(row.name):
        syntax = syntax.removesuffix(", rm")
    if aliases:
        for alias, condition, text in _ALIASES:
            if alias == row.name and _holds(condition, values):
                name, _, syntax = text.partition(" ")
                break
    return f"{name:<7} {_operands(syntax, values, pc)}".rstrip()
