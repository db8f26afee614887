"""The reference pages in the repository are those that the command table gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from instar.monitor import commands
from instar.monitor.reference import hmp_page, qmp_page
from instar.monitor.update_page import update_page

assert commands
FOLDER = Path(__file__).resolve().parents[3] / "docs" / "reference"


@pytest.mark.parametrize(
    ("name", "page"), [("qmp.md", qmp_page), ("hmp.md", hmp_page), ("update.md", update_page)]
)
def test_reference_page_is_current_else_run_gen_docs(name, page) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == page()
