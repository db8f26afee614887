"""A hart's registers under the names that people use: number and ABI name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instar.cpu.rv64.operands import F_NAMES, X_NAMES

if TYPE_CHECKING:
    from instar.monitor.context import CpuInfo


def named_registers(cpu: CpuInfo) -> dict[str, int]:
    """Return the registers by label (``pc``, ``x2/sp``, ``f10/fa0``, ``satp``), the program counter first."""
    registers = dict(cpu.registers())
    labels = {f"x{n}": f"x{n}/{name}" for n, name in enumerate(X_NAMES)}
    labels |= {f"f{n}": f"f{n}/{name}" for n, name in enumerate(F_NAMES)}
    first = {"pc": registers.pop("pc")} if "pc" in registers else {}
    return first | {labels.get(name, name): value for name, value in registers.items()}
