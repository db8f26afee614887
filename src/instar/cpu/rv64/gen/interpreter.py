"""Make the interpreter: one function with a branch for each operation, which C compilers turn into a jump table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instar.cpu.rv64.gen.operations import Operations

SIZES = {"i8": 1, "u8": 1, "i16": 2, "u16": 2, "i32": 4, "u32": 4, "u64": 8}
WIDTHS = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}
PC = "(page + (cast(u64, ip - base) << 1))"
LINK = f"{PC} + 4"
LINK_SHORT = f"{PC} + 2"
IMM = "cast(u64, cast(i64, ip.imm))"

# Shorthand of the bodies below: NEXT goes on after the instruction (of two halfwords, or one), RAISE ends the run
# before it and LEAVE after it, JUMP goes to the virtual address t.
NEXT = "ip = ip + 2"
NEXT_SHORT = "ip = ip + 1"
RAISE = ["n = n + 1", "break"]
LEAVE = [NEXT, "if c.leave != 0:", "    break"]
JUMP = [
    "it = itlb + ((t >> 12) & 255)",
    "if it.tag == (t >> 12):",
    "    base = it.base",
    "    page = t & ~cast(u64, 0xfff)",
    "    ip = base + ((t & 0xfff) >> 1)",
    "else:",
    "    page = t",
    "    base = ip",
    "    break",
]
ILLEGAL = ["c.cause = 2", "c.tval = cast(u32, ip.imm)", *RAISE]
NEED_FLOAT = [
    "if (c.mstatus & 0x6000) == 0:",
    "    c.cause = 2",
    f"    c.tval = code_word(c, {PC})",
    *(f"    {line}" for line in RAISE),
]

FIXED = {
    "undecoded": ["decode_at(c, ip, base)", "n = n + 1"],
    "page_end": [f"t = {PC}", "n = n + 1", *JUMP],
    "cross": [
        "if decode_cross(c, ip, page) != 0:",
        *(f"    {line}" for line in RAISE),
        "base = cast(pInsn, cast(P_u8, c.cross) - 2047 * sizeof(Insn))",
        "ip = cast(pInsn, c.cross)",
        "n = n + 1",
    ],
    "illegal": ILLEGAL,
    "system": ["c.cause = CAUSE_SYSTEM", *RAISE],
    "fp": ["if fp_exec(c, cast(u32, ip.imm)) != 0:", *(f"    {line}" for line in ILLEGAL), NEXT],
    "jump": ["ip = ip + ip.imm"],
    "jal_far": [f"t = {PC}", "x[ip.rd] = t + 4", f"t = t + {IMM}", *JUMP],
}


def words(expression: str) -> str:
    """Return an effect's expression with the names of its operands replaced."""
    names = {"rd": "x[ip.rd]", "rs1": "x[ip.rs1]", "rs2": "x[ip.rs2]", "imm": IMM, "pc": PC}
    return re.sub(r"\b(rd|rs1|rs2|imm|pc)\b", lambda m: names[m[0]], expression)


def page_mask(size: int) -> str:
    """Return a mask that leaves of an address its page, and its low bits if it is not aligned."""
    return f"~cast(u64, {0xFFF & ~(size - 1):#x})"


def extended(kind: str, value: str) -> str:
    """Return the expression for a loaded value as 64 bits."""
    return f"cast(u64, cast(i64, {value}))" if kind[0] == "i" else f"cast(u64, {value})"


def load(kind: str) -> list[str]:
    """Return the body of a load."""
    size = SIZES[kind]
    direct = extended(kind, f"cast(P_{kind}, cast(P_u8, va + e.add))[0]")
    return [
        f"va = x[ip.rs1] + {IMM}",
        "e = tlb + ((va >> 12) & 511)",
        f"if e.load_tag == (va & {page_mask(size)}):",
        f"    x[ip.rd] = {direct}",
        f"    {NEXT}",
        "else:",
        "    c.left = n + 1",
        f"    u = slow_load(c, va, {size})",
        "    if c.fault != 0:",
        *(f"        {line}" for line in RAISE),
        f"    x[ip.rd] = {extended(kind, f'cast({kind}, u)')}",
        *(f"    {line}" for line in LEAVE),
    ]


def store(size: int, value: str = "x[ip.rs2]") -> list[str]:
    """Return the body of a store."""
    kind = WIDTHS[size]
    return [
        f"va = x[ip.rs1] + {IMM}",
        "e = tlb + ((va >> 12) & 511)",
        f"if e.store_tag == (va & {page_mask(size)}):",
        f"    cast(P_{kind}, cast(P_u8, va + e.add))[0] = cast({kind}, {value})",
        f"    {NEXT}",
        "else:",
        "    c.left = n + 1",
        f"    slow_store(c, va, {size}, {value})",
        "    if c.fault != 0:",
        *(f"        {line}" for line in RAISE),
        *(f"    {line}" for line in LEAVE),
    ]


def float_load(size: int) -> list[str]:
    """Return the body of a floating-point load: boxed, and the unit's state becomes dirty."""
    kind = WIDTHS[size]
    boxed = "u" if size == 8 else "zx32(u) | (~cast(u64, 0) << 32)"
    return [
        *NEED_FLOAT,
        f"va = x[ip.rs1] + {IMM}",
        "e = tlb + ((va >> 12) & 511)",
        f"if e.load_tag == (va & {page_mask(size)}):",
        f"    u = cast(P_{kind}, cast(P_u8, va + e.add))[0]",
        "else:",
        "    c.left = n + 1",
        f"    u = slow_load(c, va, {size})",
        "    if c.fault != 0:",
        *(f"        {line}" for line in RAISE),
        f"c.f[ip.rd] = {boxed}",
        "c.mstatus = c.mstatus | 0x6000",
        *LEAVE,
    ]


def call(function: str, args: str) -> list[str]:
    """Return the body of an operation that a function does, which may fault or ask to leave."""
    return [
        "c.left = n + 1",
        f"{function}(c, ip, {args})",
        "if c.fault != 0:",
        *(f"    {line}" for line in RAISE),
        *LEAVE,
    ]


def branch(condition: str, *, far: bool) -> list[str]:
    """Return the body of a branch; within the page it moves the pointer."""
    if far:
        taken = [f"t = {PC} + {IMM}", *JUMP]
        return [
            f"if {words(condition)}:",
            *(f"    {line}" for line in taken),
            "else:",
            f"    {NEXT}",
        ]
    return [f"if {words(condition)}:", "    ip = ip + ip.imm", "else:", f"    {NEXT}"]


def body(effect: str) -> list[str]:
    """Return the body for an effect of the table.

    Raises:
        ValueError: the effect is not known.
    """
    kind, _, rest = effect.partition(" ")
    if kind == "rd" and rest.startswith("= "):
        return [f"x[ip.rd] = {words(rest[2:])}", NEXT]
    simple = {
        "nop": [NEXT],
        "fence": [f"{rest}_fence()", NEXT],
        "jal": [f"x[ip.rd] = {LINK}", "ip = ip + ip.imm"],
        "jalr": [
            f"t = (x[ip.rs1] + {IMM}) & ~cast(u64, 1)",
            f"x[ip.rd] = {LINK}",
            *JUMP,
        ],
        "amo": call("amo_exec", rest),
        "lr": call("lr_exec", rest),
        "sc": call("sc_exec", rest),
    }
    if kind in simple:
        return simple[kind]
    if kind == "load":
        return load(rest)
    if kind == "store":
        return store(int(rest))
    if kind == "fload":
        return float_load(int(rest))
    if kind == "fstore":
        return NEED_FLOAT + store(int(rest), "c.f[ip.rs2]")
    raise ValueError(f"effect {effect!r} is not known")


def operation_body(name: str, operations: Operations) -> list[str]:
    """Return the body of an operation, by its name."""
    if name in FIXED:
        return FIXED[name]
    if name.startswith("loop_"):
        return loop(name.removeprefix("loop_"), operations)
    near = name.removesuffix("_far")
    long = near.removesuffix("_short")
    effect = operations.effects[long]
    condition = effect.removeprefix("branch ")
    lines = body(effect) if condition == effect else branch(condition, far=near != name)
    return lines if long == near else [shortened(line) for line in lines]


def loop(name: str, operations: Operations) -> list[str]:
    """Return the body of a loop's operation, which stands for the branch at its end."""
    last = operations.loops[name][-1].split()[0]
    condition = operations.effects[last].removeprefix("branch ")
    return [
        f"if {words(condition)}:",
        "    ip = ip + ip.imm",
        f"    n = n - run_{name}(c, ip, n)",
        "    ip = c.ip",
        "else:",
        f"    {NEXT}",
    ]


def shortened(line: str) -> str:
    """Return a line of an operation for instructions of one halfword."""
    return line.replace(NEXT, NEXT_SHORT).replace(LINK, LINK_SHORT)


def interpreter(operations: Operations) -> str:
    """Return the source of ``run_code(c, n)`` and ``amo_value(kind, old, rs2)``."""
    lines = [
        "@cython.cfunc",
        "@cython.nogil",
        "@cython.exceptval(check=False)",
        "def run_code(c: pCpu, n: i64) -> i64:",
        "    x: P_u64 = c.x",
        "    ip: pInsn = c.ip",
        "    base: pInsn = c.base",
        "    page: u64 = c.page_va",
        "    tlb: pTlb = c.tlb",
        "    itlb: pItlb = c.itlb",
        "    va: u64",
        "    t: u64",
        "    u: u64",
        "    e: pTlb",
        "    it: pItlb",
        "    op: cython.int",
        "    while n > 0:",
        "        n = n - 1",
        "        op = ip.op",
    ]
    for number, name in enumerate(operations.names()):
        lines.append(f"        {'elif' if number else 'if'} op == {number}:  # {name}")
        lines += [f"            {line}" for line in operation_body(name, operations)]
    lines += ["        else:", "            unreachable()"]
    lines += ["    c.ip = ip", "    c.base = base", "    c.page_va = page", "    return n", ""]
    return "\n".join(lines + amo_value(operations))


def amo_value(operations: Operations) -> list[str]:
    """Return the lines of the function that computes what an atomic instruction stores."""
    lines = [
        "",
        "@cython.cfunc",
        "@cython.nogil",
        "@cython.exceptval(check=False)",
        "def amo_value(kind: i32, old: u64, rs2: u64) -> u64:",
    ]
    for number, expression in enumerate(operations.atomics):
        lines += [f"    if kind == {number}:", f"        return {expression}"]
    return [*lines, "    return old"]
