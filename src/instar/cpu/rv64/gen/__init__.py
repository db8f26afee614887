"""Make the source of ``_core`` from the instruction table, the register table and the parts in ``core/``.

Used by ``setup.py`` when the package is built; nothing here is imported at run time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from instar.cpu.rv64.csrs import CSRS, HART_WORDS
from instar.cpu.rv64.gen.decoder import decoder
from instar.cpu.rv64.gen.interpreter import interpreter
from instar.cpu.rv64.gen.join import Literals, join_parts, join_types
from instar.cpu.rv64.gen.loops import loops
from instar.cpu.rv64.gen.operations import Operations
from instar.cpu.rv64.gen.registers import registers, saved_words
from instar.cpu.rv64.isa import COMPRESSED, LOOPS, WORDS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["generate"]

HEADER = """\
# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: infer_types=False
# Made by instar.cpu.rv64.gen; do not edit.
import cython
from cython import cast, sizeof
from cython.cimports._core_types import *
from cython.cimports.cpython.buffer import PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cython.cimports.libc.stdlib import calloc, free
"""


def generate(core: Path, out: Path) -> Path:
    """Write ``_core.py`` and ``_core_types.pxd`` into a folder.

    Args:
        core: The folder of the hand-written parts.
        out: The folder to write to; made if it is missing. Files that would not change are left alone.

    Returns:
        The path of ``_core.py``.

    Raises:
        ValueError: a table has an effect or operand that the generator does not know; nothing was written.
    """
    literals = Literals()
    operations = Operations(WORDS, COMPRESSED, LOOPS)
    made = "\n\n".join(
        (
            decoder("decode32", WORDS, operations),
            decoder("decode16", COMPRESSED, operations),
            loops(operations),
            interpreter(operations),
            registers(CSRS),
            saved_words(CSRS, HART_WORDS),
        )
    )
    source = literals.replace(f"{HEADER}\n{join_parts(core)}\n\n{made}\n")
    types = f"{join_types(core)}\n{operations.declarations()}\n{literals.declarations()}\n"
    out.mkdir(parents=True, exist_ok=True)
    write(out / "_core_types.pxd", types)
    write(out / "_core.py", source)
    return out / "_core.py"


def write(path: Path, text: str) -> None:
    """Write unless it is there already, so that an unchanged core is not compiled again."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
