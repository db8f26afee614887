"""Versions of the program that have a fault."""

from __future__ import annotations

from pathlib import Path

from harness import PROGRAM

MAIN = "from instar.cli.start import main\nsys.exit(main())\n"


def faulty(folder: Path, patch: str) -> Path:
    """Write a launcher that runs ``patch`` (Python) before the program."""
    lines = PROGRAM.read_text().splitlines(keepends=True)
    start = next(n for n, line in enumerate(lines) if line.startswith("from instar"))
    path = folder / "instar-faulty"
    path.write_text("".join(lines[:start]) + patch + MAIN)
    path.chmod(0o755)
    return path
