"""Write docs/reference/options.md from the table of options."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from instar.cli.options.help import reference_page  # noqa: E402 - after the path

PAGE = ROOT / "docs" / "reference" / "options.md"

if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(reference_page(), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)} written")
