"""Write docs/reference/qmp.md and hmp.md from the command table, update.md from the tables of an update."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from instar.monitor import commands  # noqa: E402 - after the path
from instar.monitor.reference import hmp_page, qmp_page  # noqa: E402 - after the path
from instar.monitor.update_page import update_page  # noqa: E402 - after the path

PAGES = {"qmp.md": qmp_page, "hmp.md": hmp_page, "update.md": update_page}

if __name__ == "__main__":
    assert commands  # importing them filled the table
    folder = ROOT / "docs" / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")
        print(f"docs/reference/{name} written")
