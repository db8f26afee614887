"""Imports point down only, and the engine knows nothing of machines."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "instar"
# Each may import what stands below it; names on one line do not import each other.
LAYERS = [
    {"cli", "testing"},
    {"image", "monitor"},
    {"migration"},
    {"machine"},
    {"boards"},
    {"cpu", "devices"},
    {"vhostuser"},
    {"virtio", "chardev", "block", "netdev", "vsock", "children"},
    {"memory"},
    {"events", "log", "loop", "signals", "stateful"},
    {"cpr", "sockfile", "units"},
    {"sandbox"},
    {"errors", "_version", "prepared"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
CONSTANTS = {"instar.virtio.features"}  # names for numbers; nothing else is in it
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")
STATES = [path for path in MODULES if path.stem == "state" and path.parent.name != "cpr"]


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(
        ".__init__"
    )


def imported(path: Path) -> set[str]:
    """The modules that a file imports, also for types only and inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import():
                found |= {alias.name for alias in node.names}
            case ast.ImportFrom(module="instar"):
                found |= {f"instar.{alias.name}" for alias in node.names}
            case ast.ImportFrom(level=0):
                found.add(node.module)
            case ast.ImportFrom():
                found.add("relative imports hide where they lead")
    return found


def piece(module: str) -> str:
    return module.split(".")[1]


def of_instar(modules: set[str]) -> set[str]:
    return {module for module in modules if module.startswith("instar.")}


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_of_any_module_point_down(path):
    here = piece(dotted(path))
    others = {piece(module) for module in of_instar(imported(path))} - {here}
    assert {name for name in others if RANK[name] <= RANK[here]} == set()


@pytest.mark.parametrize("path", sorted((SOURCE / "cpr").rglob("*.py")), ids=dotted)
def test_imports_of_the_engine_are_standard_library_only(path):
    names = {
        module.split(".")[0] for module in imported(path) if not module.startswith("instar.cpr")
    }
    assert names - sys.stdlib_module_names == set()


@pytest.mark.parametrize("path", STATES, ids=dotted)
def test_imports_of_state_declarations_are_states_only(path):
    modules = of_instar(imported(path)) - CONSTANTS
    other = {
        name
        for name in modules
        if not name.startswith("instar.cpr.") and not name.endswith(".state")
    }
    assert other == set()


UNAWARE = ("devices", "machine", "migration", "monitor")  # of what runs the guest's instructions
COMMAND_OF_QEMU = (
    "instar.monitor.commands.machine"  # query-kvm: it asks the machine for ``hardware``
)
BACK_ENDS = {"rv64", "kvm", "software", "interpreter", "tcg", "accel"}


def names_of(path: Path) -> set[str]:
    """Words of the names that a file's code uses; what it imports as modules, too."""
    tree = ast.parse(path.read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {part for module in imported(path) for part in module.split(".")}
    return {word.lower() for name in names for word in name.split("_")}


@pytest.mark.parametrize(
    "path", [path for path in MODULES if piece(dotted(path)) in UNAWARE], ids=dotted
)
def test_what_runs_the_guest_is_not_asked_for_by_what_serves_it(path):
    words = names_of(path) & BACK_ENDS
    assert words == ({"kvm"} if dotted(path) == COMMAND_OF_QEMU else set())


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_printing_and_exiting_is_for_the_command_line(path):
    names = {
        node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)
    }
    allowed = {"print"} if piece(dotted(path)) == "cli" else set()
    assert names & {"print", "exit", "quit"} <= allowed
