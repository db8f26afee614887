"""Harts as people look at them: registers under their names, instructions as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instar.cpu.rv64.disasm import disassemble, instruction_length
from instar.cpu.rv64.operands import F_NAMES, X_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def named(fields: Mapping[str, int | list[int]]) -> dict[str, int]:
    """Return a hart's registers by label (``pc``, ``x2/sp``, ``f10/fa0``, ``satp``), the program counter first.

    Args:
        fields: As ``Core.save_hart`` returns them.
    """
    registers: dict[str, int] = {}
    for name, value in fields.items():
        if isinstance(value, int):
            registers[name] = value
        else:
            registers.update({f"{name}{n}": item for n, item in enumerate(value)})
    labels = {f"x{n}": f"x{n}/{name}" for n, name in enumerate(X_NAMES)}
    labels |= {f"f{n}": f"f{n}/{name}" for n, name in enumerate(F_NAMES)}
    first = {"pc": registers.pop("pc")} if "pc" in registers else {}
    return first | {labels.get(name, name): value for name, value in registers.items()}


def disassembled(read: Callable[[int, int], bytes], address: int) -> tuple[int, str]:
    """Return length and text (its bits, then its mnemonic) of the instruction at ``address``.

    Args:
        read: Gives the bytes at an address; what it raises goes through.
        address: Of the instruction.
    """
    word = int.from_bytes(read(address, 2), "little")
    length = instruction_length(word)
    if length == 4:
        word |= int.from_bytes(read(address + 2, 2), "little") << 16
    return length, f"{word:0{2 * length}x}  {disassemble(word, address)}"
