"""A two-pass assembler over the instruction table, for the bare-metal guest and for tests.

Syntax as GNU's: one statement a line, ``#`` or ``//`` comments, ``name:`` and ``1:`` labels (``1b``, ``1f``),
registers by number or ABI name, ``imm(reg)``, ``%hi()``, ``%lo()``, the usual pseudo-instructions (``pseudo``).
Nothing is compressed or relaxed unless written so: ``la``, ``call`` and ``tail`` take 8 bytes.

Directives: ``.byte .half .word .dword`` (expressions), ``.ascii .asciz`` (strings), ``.align`` (power of two;
filled with c.nop), ``.space`` (bytes of zero), ``.equ name, expression``.
"""

from __future__ import annotations

import bisect
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from instar.cpu.rv64.expr import ESCAPES, AssemblyError, evaluate
from instar.cpu.rv64.isa import FIELDS, ROWS
from instar.cpu.rv64.operands import (
    CSRS,
    REGISTERS,
    ROUNDING,
    SUFFIXES,
    default_rounding,
    insert,
    limits,
    slots,
)
from instar.cpu.rv64.pseudo import expand

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from instar.cpu.rv64.isa import Field, Row
    from instar.cpu.rv64.operands import Slot

__all__ = ["AssemblyError", "Program", "assemble"]

_MAX_IMAGE: Final = 16 << 20  # bytes; a .space typed wrong shall not fill the host's memory
_ROWS: Final = {row.name: row for row in ROWS}
_MASK64: Final = (1 << 64) - 1
_DATA: Final = {".byte": 1, ".half": 2, ".word": 4, ".dword": 8}
_LABEL: Final = re.compile(r"\s*([A-Za-z_.$][\w.$]*|\d+):(?!:)")
_NAME: Final = re.compile(r"[A-Za-z_.$][\w.$]*")
_STRING: Final = re.compile(r'\s*"((?:\\.|[^"\\])*)"\s*')
_COMMENT: Final = re.compile(r"(\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])')|(?:#|//).*")
_IN_PARENTHESES: Final = re.compile(r"(.*)\(\s*(\w+)\s*\)\s*", re.DOTALL)
_C_NOP: Final = b"\x01\x00"


class Program(NamedTuple):
    """What the assembler made.

    Attributes:
        image: The bytes, the first for the address ``origin``.
        symbols: Labels (addresses) and ``.equ`` constants by name.
    """

    image: bytes
    symbols: dict[str, int]


class _Statement(NamedTuple):
    """An instruction or directive with its place."""

    line: int
    address: int
    size: int
    name: str
    operands: str


def _split_operands(text: str) -> list[str]:
    """Split at commas outside parentheses and quotes."""
    parts: list[str] = [""]
    depth = 0
    for piece in re.findall(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])'|.", text, re.DOTALL):
        depth += (piece == "(") - (piece == ")")
        if piece == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    return [part.strip() for part in parts] if text.strip() else []


def _find_row(name: str) -> tuple[Row, int] | None:
    """Return the row of a mnemonic and the bits of its suffix."""
    for suffix, bits in SUFFIXES.items():
        row = _ROWS.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
        if row is not None and (not suffix or row.ext == "a"):
            return row, bits
    return None


class _Assembler:
    """The state of one run: statements after pass one, symbols, the image after pass two."""

    def __init__(self, origin: int, defines: Mapping[str, int]) -> None:
        self.origin = origin
        self.address = origin
        self.symbols: dict[str, int] = dict(defines)
        self.defines = defines
        self.defined: set[str] = set()
        self.numbered: dict[str, list[int]] = {}
        self.statements: list[_Statement] = []

    # ------------------------------------------------------------ names

    def _lookup(self, address: int) -> Callable[[str], int]:
        """Return the meaning of names in a statement at ``address``."""

        def find(name: str) -> int:
            if name == ".":
                return address
            if name[0].isdigit():
                return self._numbered(name, address)
            if name not in self.symbols:
                raise AssemblyError(f"symbol {name!r} is not defined")
            return self.symbols[name]

        return find

    def _numbered(self, name: str, address: int) -> int:
        places = self.numbered.get(name[:-1], [])
        after = bisect.bisect_right(places, address)
        index = after - 1 if name.endswith("b") else after
        if not 0 <= index < len(places):
            where = "before" if name.endswith("b") else "after"
            raise AssemblyError(f"there is no label {name[:-1]}: {where} this line")
        return places[index]

    def _define(self, name: str, value: int) -> None:
        if name in self.defined:
            raise AssemblyError(f"symbol {name!r} is defined twice")
        self.defined.add(name)
        if name not in self.defines:
            self.symbols[name] = value

    # ------------------------------------------------------------ pass one: sizes and labels

    def read(self, number: int, line: str) -> None:
        """Take one source line: define its labels, remember its statement."""
        text = _COMMENT.sub(lambda match: match[1] or "", line)
        while match := _LABEL.match(text):
            text = text[match.end() :]
            if match[1].isdigit():
                self.numbered.setdefault(match[1], []).append(self.address)
            elif match[1] in self.defines:
                raise AssemblyError(f"label {match[1]!r} cannot be replaced; only .equ can")
            else:
                self._define(match[1], self.address)
        name, _, operands = text.strip().partition(" ")
        name, _, rest = name.partition("\t")
        if name:
            self._place(number, name.lower(), f"{rest} {operands}".strip())

    def _place(self, number: int, name: str, operands: str) -> None:
        if name == ".equ":
            self._equ(operands)
            return
        if name.startswith("."):
            self._add(number, self._directive_size(name, operands), name, operands)
            return
        row = _find_row(name)
        if row is not None and self._shape_fits(row[0], operands):
            self._add(number, 2 if row[0].ext == "c" else 4, name, operands)
            return
        parts = expand(name, _split_operands(operands), self._known)
        if parts is None:
            raise AssemblyError(self._unknown(name, operands))
        for part in parts:
            part_name, _, part_operands = part.partition(" ")
            self._add(number, 4, part_name, part_operands)

    @staticmethod
    def _shape_fits(row: Row, operands: str) -> bool:
        want = len(slots(row.syntax))
        have = len(_split_operands(operands))
        return have == want or (have == want - 1 and row.syntax.endswith(", rm"))

    @staticmethod
    def _unknown(name: str, operands: str) -> str:
        row = _find_row(name)
        if row is None:
            return f"there is no instruction {name!r}"
        return f"{name} takes {row[0].syntax or 'no operands'}, not {operands or 'nothing'}"

    def _add(self, number: int, size: int, name: str, operands: str) -> None:
        if self.address + size - self.origin > _MAX_IMAGE:
            raise AssemblyError(f"the image grows beyond {_MAX_IMAGE} bytes")
        self.statements.append(_Statement(number, self.address, size, name, operands))
        self.address += size

    def _known(self, text: str) -> int:
        """Evaluate what must be known in pass one."""
        return evaluate(text, self._lookup(self.address))

    def _equ(self, operands: str) -> None:
        parts = _split_operands(operands)
        if len(parts) != 2 or not _NAME.fullmatch(parts[0]):
            raise AssemblyError(".equ takes a name and an expression")
        self._define(parts[0], self._known(parts[1]))

    def _directive_size(self, name: str, operands: str) -> int:
        parts = _split_operands(operands)
        if name in _DATA and parts:
            return _DATA[name] * len(parts)
        if name in (".ascii", ".asciz"):
            return len(_strings(name, parts))
        if name not in (".align", ".space") or len(parts) != 1:
            known = " ".join((*_DATA, ".ascii .asciz .align .space .equ"))
            raise AssemblyError(f"{name} {operands}: not one of {known} with operands that fit")
        value = self._known(parts[0])
        highest = 16 if name == ".align" else _MAX_IMAGE
        if not 0 <= value <= highest:
            raise AssemblyError(f"{name} {value}: allowed 0 to {highest}")
        return -self.address % (1 << value) if name == ".align" else value

    # ------------------------------------------------------------ pass two: bytes

    def emit(self, item: _Statement) -> bytes:
        """Return the bytes of a statement."""
        parts = _split_operands(item.operands)
        if item.name in _DATA:
            return b"".join(self._number(item, part) for part in parts)
        if item.name == ".align":
            return (b"\0" * (item.size % 2)) + _C_NOP * (item.size // 2)
        if item.name == ".space":
            return bytes(item.size)
        if item.name.startswith(".asc"):
            return _strings(item.name, parts)
        return self._instruction(item, parts).to_bytes(item.size, "little")

    def _number(self, item: _Statement, text: str) -> bytes:
        width = 8 * _DATA[item.name]
        value = evaluate(text, self._lookup(item.address))
        if not -(1 << (width - 1)) <= value < 1 << width:
            raise AssemblyError(f"{value:#x} does not fit in {item.name}'s {width} bits")
        return (value & ((1 << width) - 1)).to_bytes(width // 8, "little")

    def _instruction(self, item: _Statement, parts: list[str]) -> int:
        found = _find_row(item.name)
        if found is None or not self._shape_fits(found[0], item.operands):
            raise AssemblyError(self._unknown(item.name, item.operands))
        row, suffix = found
        wanted = slots(row.syntax)
        if len(parts) < len(wanted):
            parts = [*parts, _rounding_name(row.name)]
        word = row.match | suffix
        for slot, text in zip(wanted, parts, strict=True):
            word |= self._slot(item, row, slot, text)
        return word

    def _slot(self, item: _Statement, row: Row, slot: Slot, text: str) -> int:
        """Return the bits of one operand, which may have another in parentheses."""
        if not slot.inner:
            return self._field(item, row, slot.outer, text)
        match = _IN_PARENTHESES.fullmatch(text)
        if match is None:
            raise AssemblyError(f"{item.name}: {text!r} should be an address like 8(sp)")
        outer = match[1].strip() or "0"
        word = self._field(item, row, slot.inner, match[2])
        if slot.outer:
            return word | self._field(item, row, slot.outer, outer)
        if evaluate(outer, self._lookup(item.address)) != 0:
            raise AssemblyError(f"{item.name}: {text!r} can have no offset")
        return word

    def _field(self, item: _Statement, row: Row, name: str, text: str) -> int:
        if name not in FIELDS:  # a register that the encoding implies
            if REGISTERS["x"].get(text) != REGISTERS["x"][name]:
                raise AssemblyError(f"{item.name}: {text!r} must be {name} here")
            return 0
        field = FIELDS[name]
        value = self._value(item, field, text)
        low, high, step = limits(field)
        if not low <= value <= high or value % step or (name in row.nonzero and value == 0):
            rule = f"{low} to {high}" + (f" in steps of {step}" if step > 1 else "")
            rule += ", not 0" if name in row.nonzero else ""
            raise AssemblyError(f"{item.name}: {text!r} is {value}, allowed {rule}")
        return insert(field, value)

    def _value(self, item: _Statement, field: Field, text: str) -> int:
        """Return the value that an operand's text means for a field of that kind."""
        if field.kind in REGISTERS:
            if text not in REGISTERS[field.kind]:
                raise AssemblyError(f"{item.name}: {text!r} is no {field.kind} register")
            return REGISTERS[field.kind][text]
        if field.kind == "fence":
            return _fence_set(item.name, text)
        named = {"csr": CSRS, "rm": ROUNDING}.get(field.kind, {})
        if text in named:
            return named[text]
        value = evaluate(text, self._lookup(item.address))
        if field.kind == "offset":
            return _signed(value - item.address)
        if field.kind == "upper":
            if not -(1 << 19) <= value < 1 << 20:
                raise AssemblyError(f"{item.name}: {text!r} is {value:#x}, allowed are 20 bits")
            return _signed(value << 44) >> 32
        return value


def _signed(value: int) -> int:
    """Return the low 64 bits as a signed number."""
    return ((value & _MASK64) ^ (1 << 63)) - (1 << 63)


def _rounding_name(name: str) -> str:
    return next(text for text, number in ROUNDING.items() if number == default_rounding(name))


def _fence_set(name: str, text: str) -> int:
    bits = {"i": 8, "o": 4, "r": 2, "w": 1}
    if text == "0":
        return 0
    if not text or any(letter not in bits for letter in text):
        raise AssemblyError(f"{name}: {text!r} is no set of i, o, r, w")
    return sum({bits[letter] for letter in text})


def _strings(name: str, parts: list[str]) -> bytes:
    """Return the bytes of quoted strings, for .asciz each with a zero."""
    out = b""
    for part in parts:
        match = _STRING.fullmatch(part)
        if match is None:
            raise AssemblyError(f"{name}: {part} is no quoted string")
        text = re.sub(r"\\(.)", lambda m: ESCAPES.get(m[1], m[1]), match[1])
        out += text.encode() + (b"\0" if name == ".asciz" else b"")
    return out


def assemble(source: str, origin: int, *, defines: Mapping[str, int] | None = None) -> Program:
    """Assemble a program.

    Args:
        source: The text.
        origin: Address of the first byte.
        defines: Values that replace those of ``.equ`` constants of the same names.

    Returns:
        Image and symbols.

    Raises:
        AssemblyError: the text names the line; or a define matches no ``.equ``.

    Source: own; syntax after the RISC-V assembly programmer's manual.
    """
    state = _Assembler(origin, defines or {})
    image = bytearray()
    line = 0
    try:
        for line, text in enumerate(source.splitlines(), 1):
            state.read(line, text)
        for item in state.statements:
            line = item.line
            image += state.emit(item)
    except AssemblyError as exc:
        raise AssemblyError(f"line {line}: {exc}") from exc
    unused = sorted(set(state.defines) - state.defined)
    if unused:
        raise AssemblyError(f"no .equ defines {', '.join(unused)}, so it cannot be replaced")
    return Program(bytes(image), state.symbols)
