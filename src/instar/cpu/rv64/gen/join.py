"""Join the hand-written parts into one module, and what Cython cannot say in a ``.py``: large literals."""

from __future__ import annotations

import ast
import io
import tokenize
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SMALL = 1 << 31  # a larger literal would be a Python object to Cython


class Literals:
    """Give every large integer literal a C name."""

    def __init__(self) -> None:
        self._values: set[int] = set()

    def replace(self, source: str) -> str:
        """Return the source with names for the large literals."""
        lines = source.splitlines(keepends=True)
        found = [
            token
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.NUMBER and _large(token.string)
        ]
        for token in reversed(found):
            row = token.start[0] - 1
            value = int(token.string, 0)
            self._values.add(value)
            line = lines[row]
            lines[row] = f"{line[: token.start[1]]}K_{value:X}{line[token.end[1] :]}"
        return "".join(lines)

    def declarations(self) -> str:
        """Return the ``.pxd`` text that declares the names."""
        values = sorted(self._values)
        defines = "\n".join(f"    #define K_{v:X} UINT64_C(0x{v:X})" for v in values)
        names = "\n".join(f"    u64 K_{v:X}" for v in values)
        return f'cdef extern from *:\n    """\n{defines}\n    """\n{names}\n'


def _large(text: str) -> bool:
    try:
        return int(text, 0) >= SMALL
    except ValueError:  # a floating-point literal
        return False


def join_parts(core: Path) -> str:
    """Return the parts' bodies, in the order of their names: without docstrings of modules and without imports."""
    return "\n\n".join(_body(path) for path in sorted(core.glob("*.py")))


def join_types(core: Path) -> str:
    """Return the declarations: ``types.pxd``, then those of single parts."""
    first = core / "types.pxd"
    rest = sorted(path for path in core.glob("*.pxd") if path != first)
    return "\n".join(path.read_text() for path in (first, *rest))


def _body(path: Path) -> str:
    source = path.read_text()
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom) or _is_text(node):
            end = node.end_lineno or node.lineno
            lines[node.lineno - 1 : end] = [""] * (end - node.lineno + 1)
    body = "\n".join(lines).strip()
    return f"# ---- {path.name}\n{body}"


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
