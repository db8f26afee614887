"""The interpreter's operations: what the instructions' effects come down to, numbered."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from instar.cpu.rv64.isa import FORMS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from instar.cpu.rv64.isa import Row

# Operations that no instruction has: number 0 must be the first, zeroed memory is a page of it.
BUILT_IN: tuple[str, ...] = ("undecoded", "page_end", "cross", "illegal", "system", "fp")


class Form(NamedTuple):
    """One way to decode an instruction: under a condition, as an operation, with operands replaced."""

    condition: str
    operation: str
    replace: dict[str, str]


class Operations:
    """All operations of a table.

    Args:
        rows: The 32-bit instructions.

    Raises:
        ValueError: an effect is not known.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = {row.name: row for row in rows}
        self.effects: dict[str, str] = {}  # operation -> effect
        self.systems: list[str] = []
        self.atomics: list[str] = []
        self.forms: dict[str, list[Form]] = {}
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
            forms.append(Form("", "system", {"imm": f"SYSTEM_{rest.upper()}"}))
        elif kind == "fp":
            forms.append(Form("", "fp", {}))
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

    def names(self) -> list[str]:
        """Return the operations' names in the order of their numbers."""
        names: list[str] = list(BUILT_IN)
        for name, effect in self.effects.items():
            names.append(name)
            if effect.startswith("branch"):
                names.append(f"{name}_far")
            elif effect == "jal":
                names += ["jump", "jal_far"]
        return names

    def declarations(self) -> str:
        """Return the ``.pxd`` text that declares the numbers."""
        lines = ["cdef enum:"]
        lines += [f"    OP_{name.upper()} = {n}" for n, name in enumerate(self.names())]
        lines += [f"    SYSTEM_{name.upper()} = {n}" for n, name in enumerate(self.systems)]
        return "\n".join(lines) + "\n"
