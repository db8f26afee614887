"""Make the decoders: from an instruction word to one decoded entry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from instar.cpu.rv64.isa import FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from instar.cpu.rv64.gen.operations import Form, Operations
    from instar.cpu.rv64.isa import Field, Row

REGISTERS: tuple[str, ...] = ("rd", "rs1", "rs2")
FLOAT_TARGETS: tuple[str, ...] = ("fload",)


def field_value(field: Field) -> str:
    """Return the expression for an operand, over the instruction word ``w``."""
    terms: list[str] = []
    for low, width, at in field.parts:
        bits = f"((w >> {low}) & {(1 << width) - 1:#x})"
        terms.append(f"({bits} << {at})" if at else bits)
    value = " | ".join(terms)
    if field.signed:
        width = max(at + width for _, width, at in field.parts)
        return f"sext({value}, {width})"
    return f"{value} + {field.base}" if field.base else value


def operands(row: Row) -> dict[str, str]:
    """Return an expression for each operand (rd, rs1, rs2, imm) of a row; what it has not is "0"."""
    values: dict[str, str] = dict.fromkeys((*REGISTERS, "imm"), "0")
    for name in fields_of(row):
        field = FIELDS[name]
        for role in field.roles.split():
            if role in values:
                values[role] = field_value(field)
    for pair in row.effect.split()[1:] if row.ext == "c" else ():
        role, _, value = pair.partition("=")
        values[role] = value
    return values


def fields_of(row: Row) -> list[str]:
    """Return the names of the fields in a row's syntax.

    Raises:
        ValueError: a name is neither a field nor a register.
    """
    names = re.findall(r"\w+", row.syntax)
    for name in names:
        if name not in FIELDS and name != "sp":
            raise ValueError(f"{row.name}: operand {name!r} is not known")
    return [name for name in names if name in FIELDS]


def decoder(name: str, rows: Iterable[Row], operations: Operations) -> str:
    """Return the source of a decoder: ``name(ip, w, off)``.

    ``off`` is the offset of the instruction in its page, bytes, or -1 where a jump may not stay in the page. A word
    that no row matches becomes the operation "illegal".
    """
    lines = [
        "@cython.cfunc",
        "@cython.nogil",
        "@cython.exceptval(check=False)",
        f"def {name}(ip: pInsn, w: u32, off: i64) -> cython.void:",
        "    rd: u32",
        "    rs1: u32",
        "    rs2: u32",
        "    imm: i64",
        "    raw: u32 = w",
        f"    key: u32 = {key_of('w', name)}",
    ]
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(group_of(row), []).append(row)
    for n, (key, members) in enumerate(groups.items()):
        lines.append(f"    {'elif' if n else 'if'} key == {key}:")
        for row in members:
            lines += [f"        {line}" for line in row_lines(row, operations)]
    lines.append("    put(ip, OP_ILLEGAL, 0, 0, 0, raw)")
    return "\n".join(lines)


def key_of(word: str, name: str) -> str:
    """Return the expression that selects a group: quadrant and funct3, or the major opcode."""
    if name == "decode16":
        return f"(({word} >> 11) & 0x1c) | ({word} & 3)"
    return f"({word} >> 2) & 31"


def group_of(row: Row) -> int:
    """Return the group of a row; every row's mask covers the key."""
    if row.ext == "c":
        return ((row.match >> 11) & 0x1C) | (row.match & 3)
    return (row.match >> 2) & 31


def row_lines(row: Row, operations: Operations) -> list[str]:
    """Return the lines that decode one row and return."""
    tests = [f"(w & {row.mask:#x}) == {row.match:#x}"]
    tests += [f"({field_value(FIELDS[name])}) != 0" for name in row.nonzero]
    values = operands(row)
    lines = [f"if {' and '.join(tests)}:"]
    lines += [f"    {role} = {value}" for role, value in values.items()]
    target = operations.rows[row.effect.split()[0] if row.ext == "c" else row.name]
    for form in operations.forms[target.name]:
        put = put_line(form, target, operations, short=row.ext == "c")
        lines += (
            [f"    if {form.condition}:", f"        {put}", "        return"]
            if form.condition
            else [
                f"    {put}",
                "    return",
            ]
        )
        if not form.condition:
            break
    return lines


def put_line(form: Form, row: Row, operations: Operations, *, short: bool) -> str:
    """Return the call that fills the entry."""
    suffix = "_SHORT" if short and form.operation in operations.short else ""
    op = f"OP_{form.operation.upper()}{suffix}"
    effect = operations.effects.get(form.operation, form.operation)
    values = {name: form.replace.get(name, name) for name in (*REGISTERS, "imm")}
    if effect.startswith("branch"):
        return f"put_branch(ip, {op}, {values['rs1']}, {values['rs2']}, imm, off)"
    if effect == "jal":
        return "put_jal(ip, rd, imm, off)"
    if effect.partition(" ")[0] in FLOAT_TARGETS:
        return f"put_float(ip, {op}, rd, rs1, imm)"
    if not row.syntax:
        values = {**dict.fromkeys((*REGISTERS, "imm"), "0"), **form.replace}
    args = ", ".join(values[name] for name in (*REGISTERS, "imm"))
    return f"put(ip, {op}, {args})"
