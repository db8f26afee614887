"""Two releases of Instar to switch between: the one of this tree, and a copy of it with the next version number."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from launcher import script

from demo_lib.errors import HOST, DemoError

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "instar"
BIN = ROOT / ".venv" / "bin"
SYSTEM = "instar-system"
_VERSION = re.compile(r'^VERSION = "(\d+)\.(\d+)\.(\d+)"$', re.MULTILINE)


class Release(NamedTuple):
    """One version of Instar: its number, and the program to execute."""

    version: str
    program: Path


def installed() -> Release:
    """Return the release of this tree.

    Raises:
        DemoError: it is not built.
    """
    program = BIN / SYSTEM
    if not program.exists():
        raise DemoError(
            f"{program} does not exist: Instar is not built",
            hint="'make demo' builds it and runs this; 'make build' only builds",
            status=HOST,
        )
    return Release(".".join(_parts()), program)


def next_release(folder: Path) -> Release:
    """Make the next release in ``folder``: the same code with another number, compiled parts included.

    A real update brings other code; what is exchanged and how is the same.

    Args:
        folder: Empty, and on a file system that programs may be executed from.
    """
    major, minor, patch = _parts()
    version = f"{major}.{minor}.{int(patch) + 1}"
    copy = folder / "instar"
    # copy2 keeps the times, so that the compiled .pyc files stay valid.
    shutil.copytree(PACKAGE, copy, copy_function=shutil.copy2)
    named = copy / "_version.py"
    named.write_text(_VERSION.sub(f'VERSION = "{version}"', named.read_text("utf-8")), "utf-8")
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(named)], check=True)
    program = folder / SYSTEM
    program.write_text(
        script(str(BIN / "python"), "-IS", str(folder), "instar.cli.start"), "utf-8"
    )
    program.chmod(0o755)
    return Release(version, program)


def _parts() -> tuple[str, ...]:
    found = _VERSION.search((PACKAGE / "_version.py").read_text("utf-8"))
    if found is None:
        raise DemoError(f"{PACKAGE / '_version.py'} names no version MAJOR.MINOR.PATCH")
    return found.groups()
