"""Write docs/reference/doctor.md from the table of checks."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from instar.cli.doctor.report import reference_page  # noqa: E402 - after the path

PAGE = ROOT / "docs" / "reference" / "doctor.md"

if __name__ == "__main__":
    PAGE.write_text(reference_page(), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)} written")
