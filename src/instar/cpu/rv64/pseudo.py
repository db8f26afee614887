"""Pseudo-instructions of the assembler: other names for one or two instructions of the table.

Source: RISC-V assembly programmer's manual, "A listing of standard RISC-V pseudoinstructions".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from instar.cpu.rv64.expr import AssemblyError, high_part, low_part

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Name and operands -> instructions; the operands' names stand for what is written.
_LINES: Final = """
nop                 addi x0, x0, 0
mv a, b             addi a, b, 0
not a, b            xori a, b, -1
neg a, b            sub a, x0, b
negw a, b           subw a, x0, b
sext.w a, b         addiw a, b, 0
seqz a, b           sltiu a, b, 1
snez a, b           sltu a, x0, b
sltz a, b           slt a, b, x0
sgtz a, b           slt a, x0, b
beqz a, b           beq a, x0, b
bnez a, b           bne a, x0, b
blez a, b           bge x0, a, b
bgez a, b           bge a, x0, b
bltz a, b           blt a, x0, b
bgtz a, b           blt x0, a, b
bgt a, b, c         blt b, a, c
ble a, b, c         bge b, a, c
bgtu a, b, c        bltu b, a, c
bleu a, b, c        bgeu b, a, c
j a                 jal x0, a
jal a               jal x1, a
jr a                jalr x0, 0(a)
jalr a              jalr x1, 0(a)
ret                 jalr x0, 0(x1)
call a              auipc x1, %hi((a) - .) ; jalr x1, %lo((a) - . + 4)(x1)
tail a              auipc x6, %hi((a) - .) ; jalr x0, %lo((a) - . + 4)(x6)
la a, b             auipc a, %hi((b) - .) ; addi a, a, %lo((b) - . + 4)
csrr a, b           csrrs a, b, x0
csrw a, b           csrrw x0, a, b
csrs a, b           csrrs x0, a, b
csrc a, b           csrrc x0, a, b
csrwi a, b          csrrwi x0, a, b
csrsi a, b          csrrsi x0, a, b
csrci a, b          csrrci x0, a, b
rdtime a            csrrs a, time, x0
rdcycle a           csrrs a, cycle, x0
rdinstret a         csrrs a, instret, x0
frcsr a             csrrs a, fcsr, x0
fscsr a             csrrw x0, fcsr, a
fence               fence iorw, iorw
sfence.vma          sfence.vma x0, x0
sfence.vma a        sfence.vma a, x0
unimp               csrrw x0, cycle, x0
fmv.s a, b          fsgnj.s a, b, b
fneg.s a, b         fsgnjn.s a, b, b
fabs.s a, b         fsgnjx.s a, b, b
fmv.d a, b          fsgnj.d a, b, b
fneg.d a, b         fsgnjn.d a, b, b
fabs.d a, b         fsgnjx.d a, b, b
"""
_PARAMETERS: Final = "abc"


def _parse(lines: str) -> dict[tuple[str, int], tuple[str, ...]]:
    """Make templates with {0} {1} {2} for the operands."""
    table: dict[tuple[str, int], tuple[str, ...]] = {}
    for line in lines.strip().splitlines():
        left, right = line[:20].split(), line[20:]
        names = [part.strip(",") for part in left[1:]]
        for index, name in enumerate(names):
            right = _replace_word(right, name, f"{{{index}}}")
        table[left[0], len(names)] = tuple(part.strip() for part in right.split(";"))
    return table


def _replace_word(text: str, name: str, value: str) -> str:
    """Replace a parameter (one letter of its own) in a line."""
    out = ""
    for i, letter in enumerate(text):
        around = text[max(i - 1, 0) : i] + text[i + 1 : i + 2]
        alone = not any(c.isalnum() or c in "._%" for c in around)
        out += value if letter == name and alone else letter
    return out


_PSEUDO: Final = _parse(_LINES)


def load_constant(register: str, value: int) -> list[str]:
    """Return the instructions that put a 64-bit constant into a register.

    Args:
        register: Its name.
        value: -2**63 to 2**64 - 1.

    Raises:
        AssemblyError: the value does not fit in 64 bits.
    """
    if not -(1 << 63) <= value < 1 << 64:
        raise AssemblyError(f"li: {value:#x} does not fit in 64 bits")
    signed = value - (1 << 64) if value >> 63 == 1 else value
    return _constant(register, signed)


def _constant(register: str, value: int) -> list[str]:
    if -0x800 <= value < 0x800:
        return [f"addi {register}, x0, {value}"]
    low = low_part(value)
    if -(1 << 31) <= value < 1 << 31:
        lines = [f"lui {register}, {high_part(value)}"]
        return [*lines, f"addiw {register}, {register}, {low}"] if low else lines
    rest = (value - low) >> 12
    shift = 12
    while rest & 1 == 0:
        rest >>= 1
        shift += 1
    lines = [*_constant(register, rest), f"slli {register}, {register}, {shift}"]
    return [*lines, f"addi {register}, {register}, {low}"] if low else lines


def expand(name: str, operands: Sequence[str], known: Callable[[str], int]) -> list[str] | None:
    """Return the instructions a pseudo-instruction stands for, each 4 bytes long.

    Args:
        name: Mnemonic.
        operands: As written.
        known: Evaluates an expression whose symbols are defined already (for ``li``).

    Returns:
        Lines of the assembler, or None if there is no such pseudo-instruction.

    Raises:
        AssemblyError: the constant of ``li`` is unknown or too large.
    """
    if name == "li" and len(operands) == 2:
        return load_constant(operands[0], known(operands[1]))
    template = _PSEUDO.get((name, len(operands)))
    return None if template is None else [line.format(*operands) for line in template]
