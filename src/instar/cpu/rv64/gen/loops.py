"""Make operations of whole loops: inner loops of the guest's kernel that copy and clear memory, as one branch each.

A loop is marked at its last instruction, a branch back inside the page, when that is decoded and the instructions from
its target on are the loop's. Where the branch is taken, the operation runs whole turns with the registers in local
variables. It counts every instruction, and stops before a turn that would not fit into the slice or that the data TLB
does not answer in full: from there the single instructions go on. So a guest cannot tell whether a loop was found.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from instar.cpu.rv64.gen.operations import Operations

SIZES = {"i8": 1, "u8": 1, "i16": 2, "u16": 2, "i32": 4, "u32": 4, "u64": 8}
WIDTHS = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}
FUNCTION = ["@cython.cfunc", "@cython.nogil", "@cython.exceptval(check=False)"]


class Step:
    """One instruction of a loop.

    Args:
        index: Its place in the loop.
        text: Its mnemonic, then rd, rs1 and rs2: a letter for each register, ``-`` for none.
        operations: Of the interpreter.
    """

    def __init__(self, index: int, text: str, operations: Operations) -> None:
        name, *letters = text.split()
        self.entry = f"e{index}"
        self.name = name
        self.op = f"OP_{name.upper()}"
        self.short = name in operations.short and not operations.effects[name].startswith("branch")
        self.registers = {
            role: letter
            for role, letter in zip(("rd", "rs1", "rs2"), letters, strict=True)
            if letter != "-"
        }
        self.kind, _, self.rest = operations.effects[name].partition(" ")

    def words(self, expression: str) -> str:
        """Return an expression of the effect with the names of local variables."""
        names = {
            **{role: f"r{letter}" for role, letter in self.registers.items()},
            "imm": f"i_{self.entry}",
        }
        return re.sub(r"\b(rd|rs1|rs2|imm)\b", lambda m: names[m[0]], expression)

    def size(self) -> int:
        """Return how many bytes of memory the instruction loads or stores, 0 if it does not."""
        if self.kind == "load":
            return SIZES[self.rest]
        return int(self.rest) if self.kind == "store" else 0

    def reach(self) -> list[str]:
        """Return the lines that end the turns where the TLB has no answer for the instruction."""
        tag = "load_tag" if self.kind == "load" else "store_tag"
        mask = f"~cast(u64, {0xFFF & ~(self.size() - 1):#x})"
        return [
            self.words(f"a_{self.entry} = rs1 + imm"),
            f"t = tlb + ((a_{self.entry} >> 12) & 511)",
            f"if t.{tag} != (a_{self.entry} & {mask}):",
            "    break",
            f"a_{self.entry} = a_{self.entry} + t.add",
        ]

    def effect(self) -> str:
        """Return the line that does what the instruction does."""
        if self.kind == "load":
            loaded = f"cast(P_{self.rest}, cast(P_u8, a_{self.entry}))[0]"
            wide = f"cast(i64, {loaded})" if self.rest[0] == "i" else loaded
            return self.words(f"rd = cast(u64, {wide})")
        if self.kind == "store":
            kind = WIDTHS[self.size()]
            return self.words(f"cast(P_{kind}, cast(P_u8, a_{self.entry}))[0] = cast({kind}, rs2)")
        return self.words(f"rd {self.rest}")


class Loop:
    """A loop of the table.

    Args:
        name: Of its operation, after ``loop_``.
        lines: Its instructions, the last one a branch to the first.
        operations: Of the interpreter.

    Raises:
        ValueError: an instruction is of a kind that no loop can have, or an address depends on the same turn.
    """

    def __init__(self, name: str, lines: Iterable[str], operations: Operations) -> None:
        self.name = name
        self.steps = [Step(index, line, operations) for index, line in enumerate(lines)]
        self.body, self.tail = self.steps[:-1], self.steps[-1]
        self.letters = sorted(
            {letter for step in self.steps for letter in step.registers.values()}
        )
        self.written: set[str] = set()
        for step in self.body:
            if step.kind not in ("rd", "load", "store"):
                raise ValueError(f"loop {name}: {step.name} cannot be part of it")
            if step.size() and step.registers["rs1"] in self.written:
                raise ValueError(
                    f"loop {name}: the address of {step.name} depends on the same turn"
                )
            if "rd" in step.registers:
                self.written.add(step.registers["rd"])
        if self.tail.kind != "branch":
            raise ValueError(f"loop {name}: it does not end with a branch")

    def places(self) -> dict[str, list[str]]:
        """Return letter to the fields of entries that name its register."""
        found: dict[str, list[str]] = {letter: [] for letter in self.letters}
        for step in self.steps:
            for role, letter in step.registers.items():
                found[letter].append(f"{step.entry}.{role}")
        return found

    def walk(self, *, check: bool) -> list[str]:
        """Return the lines that find the entries of all instructions, from ``e0`` on."""
        lines: list[str] = []
        for step, after in zip(self.steps, [*self.steps[1:], None], strict=True):
            if check:
                lines.append(f"    if {step.entry}.op == OP_UNDECODED:")
                lines.append(f"        decode_entry(c, {step.entry}, base)")
                ops = (step.op, f"{step.op}_SHORT") if step.short else (step.op,)
                lines.append(f"    if {' and '.join(f'{step.entry}.op != {op}' for op in ops)}:")
                lines.append("        return False")
            if after:
                length = f"(1 if {step.entry}.op == {step.op}_SHORT else 2)" if step.short else "2"
                lines.append(f"    {after.entry} = {step.entry} + {length}")
        return lines

    def declared(self) -> list[str]:
        """Return the declarations of all entries but the first."""
        return [f"    {step.entry}: pInsn" for step in self.steps[1:]]

    def matcher(self) -> list[str]:
        """Return the function that says whether entries are this loop: each letter one register, no two the same."""
        lines = [
            *FUNCTION,
            f"def is_{self.name}(c: pCpu, e0: pInsn, tail: pInsn, base: pInsn) -> cython.bint:",
        ]
        lines += [*self.declared(), "    seen: u64 = 0", *self.walk(check=True)]
        lines += [f"    if {self.tail.entry} != tail:", "        return False"]
        for first, *others in self.places().values():
            for other in others:
                lines += [f"    if {first} != {other}:", "        return False"]
            lines += [f"    if (seen >> {first}) & 1:", "        return False"]
            lines.append(f"    seen |= cast(u64, 1) << {first}")
        return [*lines, "    return True", ""]

    def runner(self) -> list[str]:
        """Return the function that runs turns; it returns how many instructions, and sets ``c.ip`` after them."""
        memory = [step for step in self.body if step.size()]
        lines = [
            *FUNCTION,
            f"def run_{self.name}(c: pCpu, e0: pInsn, n: i64) -> i64:",
            *self.declared(),
        ]
        lines += ["    done: i64 = 0", "    tlb: pTlb = c.tlb", "    t: pTlb"]
        lines += [f"    a_{step.entry}: u64" for step in memory]
        lines += [*self.walk(check=False), f"    c.ip = {self.tail.entry} + 2"]
        lines += [f"    r{letter}: u64 = c.x[{at[0]}]" for letter, at in self.places().items()]
        lines += [
            f"    i_{step.entry}: u64 = cast(u64, cast(i64, {step.entry}.imm))"
            for step in self.body
        ]
        turn = [line for step in memory for line in step.reach()]
        turn += [step.effect() for step in self.body]
        turn += [
            f"done = done + {len(self.steps)}",
            f"if not ({self.tail.words(self.tail.rest)}):",
            "    n = -1",
        ]
        lines += [
            f"    while n - done >= {len(self.steps)}:",
            *(f"        {line}" for line in turn),
        ]
        lines += ["    if n >= 0:", "        c.ip = e0"]
        lines += [
            f"    c.x[{self.places()[letter][0]}] = r{letter}" for letter in sorted(self.written)
        ]
        return [*lines, "    return done", ""]


def loops(operations: Operations) -> str:
    """Return the source of ``mark_loop(c, ip, base)`` and of the functions that find and run each loop."""
    made = [Loop(name, lines, operations) for name, lines in operations.loops.items()]
    lines: list[str] = []
    for loop in made:
        lines += [*loop.matcher(), *loop.runner()]
    lines += [*FUNCTION, "def mark_loop(c: pCpu, ip: pInsn, base: pInsn) -> cython.void:"]
    for loop in made:
        lines.append(f"    if ip.op == {loop.tail.op} and ip.imm < 0:")
        lines.append(f"        if is_{loop.name}(c, ip + ip.imm, ip, base):")
        lines.append(f"            ip.op = OP_LOOP_{loop.name.upper()}")
    return "\n".join(lines)
