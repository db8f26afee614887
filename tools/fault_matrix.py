"""Run the fault matrix and, if no guest was lost, say in the README how many cases that were. ``make matrix``.

Usage: ``.venv/bin/python tools/fault_matrix.py``
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
MATRIX = "tests/faults/test_matrix.py"
CASES = "survives"  # in the names of the tests that have the cases
LINE = re.compile(r"^\*\*(\d+) failed updates, 0 guests lost\*\*", re.MULTILINE)


def main() -> int:
    """Run it; the exit status is pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ["-m", "pytest", "-q", MATRIX, "-k", CASES, f"--junitxml={report}"]
        done = subprocess.run([sys.executable, *words], cwd=ROOT, check=False)
        if done.returncode:
            return done.returncode
        cases = len(ElementTree.parse(report).findall(".//testcase"))
    readme = ROOT / "README.md"
    line = f"**{cases} failed updates, 0 guests lost**"
    text, found = LINE.subn(line, readme.read_text("utf-8"))
    if found != 1:
        print("README.md has no line of the fault matrix", file=sys.stderr)
        return 1
    readme.write_text(text, "utf-8")
    print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
