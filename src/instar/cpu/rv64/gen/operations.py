"""The interpreter's operations: what the instructions' effects come down to, numbered."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from instar.cpu.rv64.isa import FORMS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from instar.cpu.rv64.isa import Row

# Operations that no instruction has: number 0 must be the first, zeroed memory is a page of it.
BUILT_IN: tuple[str, ...] = ("undecoded", "page_end", "cross", "illegal", "system", "fp")


# Effects that go on to the next instruction in memory, wherever else they may end, or keep its address.
GO_ON: tuple[str, ...] = ("rd", "branch", "jalr", "nop", "load", "store", "fload", "fstore")


class Form(NamedTuple):
    """One way to decode an instruction: under a condition, as an operation, with operands replaced."""

    condition: str
    operation: str
    replace: dict[str, str]


class Operations:
    """All operations of a table.

    Where the next instruction is, an operation knows by itself: what compressed instructions expand to is there twice,
    the second time with ``_short`` in its name. So the host's processor has the next entry's address at once; to read
    the length from the entry would be the longest chain of its work.

    Args:
        rows: The 32-bit instructions.
        compressed: Those that expand to one of them.
        loops: Name to instructions, see ``LOOPS`` of the table.

    Raises:
        ValueError: an effect is not known.
    """

    def __init__(
        self, rows: Iterable[Row], compressed: Iterable[Row], loops: Mapping[str, tuple[str, ...]]
    ) -> None:
        self.rows = {row.name: row for row in rows}
        self._expanded = {row.effect.split()[0] for row in compressed}
        self.short: set[str] = set()  # operations that are there twice
        self.effects: dict[str, str] = {}  # operation -> effect
        self.systems: list[str] = []
        self.atomics: list[str] = []
        self.forms: dict[str, list[Form]] = {}
        self.loops = dict(loops)
        for row in self.rows.values():
            self._add(row)

    def _add(self, row: Row) -> None:
        kind, _, rest = row.effect.partition(" ")
        forms: list[Form] = []
        self.forms[row.name] = forms
        for name, condition, operation, effect, replace in FORMS:
            if name == row.name:
                pairs = dict(pair.split("=") for pair in replace.split())
                forms.append(Form(condition, operation, pairs))
                self.effects[operation] = effect
        if kind == "system":
            self.systems.append(rest)
            forms.append(Form("", "system", {"rs2": f"SYSTEM_{rest.upper()}", "imm": "raw"}))
        elif kind == "fp":
            forms.append(Form("", "fp", {"imm": "raw"}))
        elif kind == "amo":
            size, _, expression = rest.partition(" ")
            if expression not in self.atomics:
                self.atomics.append(expression)
            self.effects[f"amo{size}"] = f"amo {size}"
            forms.append(Form("", f"amo{size}", {"imm": str(self.atomics.index(expression))}))
        else:
            operation = row.name.replace(".", "_")
            self.effects[operation] = row.effect
            forms.append(Form("", operation, {}))
            if row.name in self._expanded and kind in GO_ON:
                self.short.update(form.operation for form in forms)

    def names(self) -> list[str]:
        """Return the operations' names in the order of their numbers."""
        names: list[str] = [*BUILT_IN, *(f"loop_{name}" for name in self.loops)]
        for name, effect in self.effects.items():
            if effect == "jal":
                names += ["jal", "jump", "jal_far"]
                continue
            for made in (name, f"{name}_short") if name in self.short else (name,):
                names.append(made)
                if effect.startswith("branch"):
                    names.append(f"{made}_far")
        return names

    def longest_loop(self) -> int:
        """Return the length of the longest loop, halfwords."""
        return max((2 * len(lines) for lines in self.loops.values()), default=0)

    def declarations(self) -> str:
        """Return the ``.pxd`` text that declares the numbers."""
        lines = ["cdef enum:"]
        lines += [f"    OP_{name.upper()} = {n}" for n, name in enumerate(self.names())]
        lines += [f"    SYSTEM_{name.upper()} = {n}" for n, name in enumerate(self.systems)]
        lines.append(f"    LONGEST_LOOP = {self.longest_loop()}")
        return "\n".join(lines) + "\n"
