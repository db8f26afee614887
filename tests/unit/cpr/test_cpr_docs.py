"""The reference page says what the code says, and the engine imports nothing that slows a pause."""

import ast
from pathlib import Path

import pytest

from instar.cpr import encoding, fds, fields, manifest, stream
from instar.cpr.lifecycle import PHASES
from instar.cpr.update import UPDATE

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "reference" / "cpr.md").read_text()
# The guardian, a rehearsal and the probe are other processes; what starts them, and a transfer, is imported where work
# goes on.
UNHURRIED = {
    "guardian", "guardian_link", "keeper", "rehearsal", "probe", "permission", "digest", "rival", "transfer", "update",
    "writer",
}  # fmt: skip
MODULES = sorted(
    path for path in (ROOT / "src" / "instar" / "cpr").glob("*.py") if path.stem not in UNHURRIED
)
BY_NEED = {"group": {"array"}}  # and only for whom has such a thing
ALLOWED = {"_signal", "atexit", "errno", "fcntl", "os", "struct", "sys", "time", "zlib"}


def test_page_shows_the_table_as_it_is():
    assert f"```mermaid\n{UPDATE.mermaid()}```" in PAGE


@pytest.mark.parametrize(("name", "paused", "what", "failure"), PHASES)
def test_page_lists_the_phase(name, paused, what, failure):
    assert f"| {name} | {['runs', 'paused'][paused]} | {what} | {failure} |" in PAGE


def test_page_gives_the_limits_as_they_are():
    assert (stream.MAX_MANIFEST, manifest.MAX_OBJECTS) == (4 << 20, 65536)
    assert (manifest.MAX_SECTIONS, fields.MAX_BYTES) == (256 << 20, 16 << 20)
    assert (encoding.MAX_DEPTH, encoding.MAX_VALUES, fds.MAX_ENTRIES) == (24, 4194304, 65536)


def top_imports(tree):
    for node in tree.body:
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module):
                yield module


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_module_imports_at_the_top_only_what_is_quick(path):
    imported = set(top_imports(ast.parse(path.read_text())))
    outside = {name for name in imported if not name.startswith("instar.cpr")}
    assert outside <= ALLOWED | BY_NEED.get(path.stem, set()) | {"__future__"}
