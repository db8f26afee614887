"""What is imported between exec and the guest's first instruction is short, and stays so.

The closure of imports is followed through the source; tests/guest/test_resume_imports.py asks a real process.
"""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
START = "instar.cli.system"
FIRST = "instar.cli.start"  # imports that late
# What it imports later, before the guest runs, if the machine has such a thing.
BY_NEED = (
    *(
        "instar.cli.options.grammar",
        "instar.cli.options.plain",
        "instar.cli.options.resolve",
        "instar.cli.options.characters",
    ),
    *("instar.block.raw", "instar.block.policy", "instar.cli.children", "instar.cli.daemons"),
    *("instar.machine.network", "instar.vsock"),
    *("instar.cli.platforms.virt", "instar.cli.platforms.microvm"),
    *(
        f"instar.devices.virtio_{name}"
        for name in ("balloon", "blk", "console", "net", "rng", "vsock")
    ),
    *(f"instar.netdev.{name}" for name in ("dgram", "stream", "tap")),
    *(
        f"instar.chardev.{name}"
        for name in ("file", "mux", "null", "pipe", "pty", "ringbuf", "stdio", "unix")
    ),
)
# docs/decisions/0001-pieces-and-contracts.md, "The resume path".
ALLOWED = {
    *(
        "sys",
        "os",
        "time",
        "errno",
        "struct",
        "select",
        "fcntl",
        "mmap",
        "zlib",
        "binascii",
        "_heapq",
        "gc",
        "marshal",
        "_frozen_importlib_external",  # what imports modules, there already
    ),
    *("_thread", "_socket", "_signal", "termios", "array", "itertools", "operator", "__future__"),
    "stat",  # os has it anyway
}


def file_of(module: str) -> Path | None:
    """The source of a module of ours; None if it is compiled or no module."""
    base = SOURCE.joinpath(*module.split("."))
    return next(
        (path for path in (base / "__init__.py", base.with_suffix(".py")) if path.exists()), None
    )


class TopLevelImports(ast.NodeVisitor):
    """Collects what is imported when a module is; not what a function imports, nor what is for type checkers."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_Import(self, node: ast.Import) -> None:
        self.names |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        submodules = {f"{node.module}.{alias.name}" for alias in node.names}
        self.names |= {node.module, *(name for name in submodules if file_of(name))}

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        return

    def visit_If(self, node: ast.If) -> None:
        unless = "TYPE_CHECKING" in ast.unparse(node.test)
        for child in node.orelse if unless else node.body + node.orelse:
            self.visit(child)


def top_level_imports(module: str) -> set[str]:
    collector = TopLevelImports()
    collector.visit(ast.parse(file_of(module).read_text()))
    parents = {module.rpartition(".")[0]} - {""}
    return collector.names | parents


def closure(*starts: str) -> dict[str, set[str]]:
    """Every module of ours that importing ``starts`` brings in, and what each imports from elsewhere."""
    found: dict[str, set[str]] = {}
    waiting = list(starts)
    while waiting:
        module = waiting.pop()
        names = top_level_imports(module)
        ours = {name for name in names if name.partition(".")[0] == "instar"}
        found[module] = names - ours
        waiting += [name for name in ours if name not in found and file_of(name)]
    return found


PATH = closure(FIRST, START, *BY_NEED)
ALWAYS = closure(FIRST, START)


@pytest.mark.parametrize("module", sorted(PATH))
def test_imports_of_the_resume_path_are_on_its_list(module):
    assert PATH[module] - ALLOWED == set()


def test_closure_of_the_program_reaches_the_machine_and_no_monitor():
    assert "instar.machine.machine" in PATH
    assert [
        module for module in PATH if module.startswith(("instar.image", "instar.cli.tool"))
    ] == []


@pytest.mark.parametrize("module", BY_NEED)
def test_what_only_some_machines_have_is_not_imported_by_all(module):
    assert file_of(module) is not None
    assert module not in ALWAYS
