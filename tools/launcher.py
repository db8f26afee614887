"""Let ``.venv`` know this tree: the programs ``instar`` and ``instar-system``, and the package for everything else.

pip's own scripts import Python's ``site`` module, which costs more than a whole pause; ``instar-system`` runs without
it (``-S``), isolated from the environment (``-I``), and with the one folder that it needs named here.

Usage: ``.venv/bin/python tools/launcher.py``
"""

from __future__ import annotations

import os
import sys
import sysconfig

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(ROOT, ".venv", "bin")
PROGRAMS = {
    "instar": ("-I", "instar.cli.tool"),  # shows progress with rich, which only site finds
    "instar-system": ("-IS", "instar.cli.start"),
}
SHEBANG = 127  # bytes that every Linux reads of a first line


def script(python: str, options: str, folder: str, module: str) -> str:
    """Return the text of a launcher.

    Args:
        python: Absolute path of the interpreter.
        options: What it is run with.
        folder: Where the package ``instar`` is.
        module: The module whose ``main`` is called.
    """
    first = f"#!{python} {options}"
    if len(first.encode()) > SHEBANG or any(character.isspace() for character in python):
        # Read by sh as a command, and by Python as a string: for paths that a first line cannot carry.
        first = f"#!/bin/sh\n'''exec' \"{python}\" {options} \"$0\" \"$@\"\n' '''"
    return (
        f"{first}\n"
        "import sys\n"
        f"sys.path.insert(0, {folder!r})\n"
        f"from {module} import main\n"
        "sys.exit(main())\n"
    )


def write(name: str) -> None:
    """Write one launcher, whole or not at all: it may be running, or be executed at this moment."""
    options, module = PROGRAMS[name]
    path = os.path.join(BIN, name)
    with open(f"{path}.new", "w", encoding="utf-8") as stream:
        stream.write(
            script(os.path.join(BIN, "python"), options, os.path.join(ROOT, "src"), module)
        )
    os.chmod(f"{path}.new", 0o755)
    os.replace(f"{path}.new", path)


def write_path() -> None:
    """Let every Python of ``.venv`` import the package from this tree (tests, examples, type checkers)."""
    with open(
        os.path.join(sysconfig.get_path("purelib"), "instar.pth"), "w", encoding="utf-8"
    ) as stream:
        stream.write(os.path.join(ROOT, "src") + "\n")


if __name__ == "__main__":
    write_path()
    for program in PROGRAMS:
        write(program)
    sys.exit(0)
