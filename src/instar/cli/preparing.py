"""The rehearsal's side of a prepared start: write down what was imported, and what the words mean.

Not on the resume path. Source: own; docs/decisions/0011-the-pause.md.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ExtensionFileLoader, SourceFileLoader
from importlib.util import cache_from_source
from marshal import dumps
from typing import TYPE_CHECKING, Any, Final

from instar.prepared import LENGTH, MAX_SIZE, stamp

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType, ModuleType

    from instar.prepared import Row

# What only a rehearsal imports: the start proper would find it in vain.
_ONLY_HERE: Final = (
    "instar.cli.rehearsal", "instar.cli.preparing", "instar.cli.options.", "instar.cpr.own", "instar.cpr.rehearsal",
    "instar.cpr.versions", "instar.cpr.carriers", "instar.cpr.target", "instar.migration.again", "instar.sandbox.",
)  # fmt: skip
_NEEDED: Final = ("instar.cli.options.config", "instar.cli.options.plain", "instar.sandbox.notice")


def prepare(words: list[str], plain: object, names: Iterable[str]) -> bytes:
    """Return what :func:`instar.prepared.take_over` takes; nothing if it would be too large.

    Args:
        words: The command line.
        plain: What it means (:mod:`instar.cli.options.plain`).
        names: The modules that were imported when the machine had loaded.

    Raises:
        OSError, ValueError: A file is not there any more, or something cannot be written down.
    """
    rows: dict[str, Row] = {}
    codes: list[CodeType] = []
    for name in (*names, "instar.cli.options.plain"):
        found = _look_at(name, sys.modules[name]) if _is_needed(name) else None
        if found is None or name in rows:
            continue
        path, package, code = found
        info = os.stat(path)
        number = -1 if code is None else len(codes)
        rows[name] = path, cache_from_source(path), package, info.st_mtime_ns, info.st_size, number
        codes += [] if code is None else [code]
    whole: Any = (stamp(), words, plain, rows)
    index = dumps(whole)
    made = b"".join((len(index).to_bytes(LENGTH, "little"), index, dumps(codes)))
    return made if len(made) <= MAX_SIZE else b""


def _is_needed(name: str) -> bool:
    return name != "__main__" and (name in _NEEDED or not name.startswith(_ONLY_HERE))


def _look_at(name: str, module: ModuleType) -> tuple[str, bool, CodeType | None] | None:
    """Return path, whether it is a package, and byte code (none: a library); None: it comes with the interpreter."""
    spec = getattr(module, "__spec__", None)
    loader = getattr(spec, "loader", None)
    if spec is None or not isinstance(loader, SourceFileLoader | ExtensionFileLoader):
        return None
    path = str(spec.origin)
    package = spec.submodule_search_locations is not None
    if isinstance(loader, ExtensionFileLoader):
        return path, package, None
    code = loader.get_code(name)
    return None if code is None else (path, package, code)
