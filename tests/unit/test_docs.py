"""What the documents say about the code is so; test_documents.py looks at the names in them."""

import re
from pathlib import Path

import pytest
from test_layers import LAYERS

from instar.migration.tables import EXEC

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
PROMISES = (ROOT / "PROMISES.md").read_text()
DOCUMENTS = sorted(ROOT.glob("*.md"))


def blocks(text, language):
    """The code blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def names_in(path):
    return re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)


def test_readme_diagram_is_the_table_of_an_update():
    assert blocks(README, "mermaid") == [EXEC.mermaid()]


def test_readme_table_of_failures_names_every_phase_of_the_old_program():
    rows = re.findall(r"^\| ([a-z, :]+) \| (?:runs|stands still) \|", README, re.MULTILINE)
    named = set(re.findall(r"\w+", " ".join(rows)))
    assert {row.phase for row in EXEC.rows} - named == set()


def test_architecture_lists_the_layers_that_are_enforced():
    (listed,) = (block for block in blocks(ARCHITECTURE, "text") if block.startswith("cli"))
    assert [set(line.split(", ")) for line in listed.splitlines()] == LAYERS


def test_architecture_names_every_part_of_the_package():
    folders = [path.name for path in (ROOT / "src" / "instar").iterdir() if path.is_dir()]
    parts = [name for name in folders if name != "__pycache__"]
    assert [name for name in parts if f"`src/instar/{name}/" not in ARCHITECTURE] == []


def test_promises_are_shown_by_tests_that_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PROMISES)
    missing = [(path, name) for path, name in named if name not in names_in(ROOT / path)]
    assert named
    assert missing == []


def test_promises_that_nothing_keeps_or_shows_say_so():
    rows = [line.strip("| ").split(" | ") for line in PROMISES.splitlines() if line[:2] == "| "]
    unshown = [row for row in rows if "`tests/" not in row[-1] and row[0] != "promise"]
    assert [row for row in unshown if not row[-1].startswith("not yet tested")] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_of_a_document_lead_to_files(path):
    targets = re.findall(r"\]\(([^)#:]+)\)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_excerpt_of_the_example_is_in_the_example():
    example = (ROOT / "examples" / "counter_service.py").read_text()
    (shown,) = blocks(README, "python")
    lines = [line.partition("  # ")[0].strip() for line in shown.splitlines()]
    assert [line for line in lines if line not in example] == ["..."]


def test_failures_page_names_tests_that_exist():
    page = (ROOT / "docs" / "reference" / "failures.md").read_text()
    files = (ROOT / "tests" / "faults").glob("test_*.py")
    known = {name for path in files for name in names_in(path)}
    named = re.findall(r"\| `(test_\w+)` \|", page)
    assert len(named) == 22
    assert set(named) - known == set()
