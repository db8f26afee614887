"""What the documents name exists, and the commands that they show are right."""

import re
import shlex
from pathlib import Path

import pytest

from instar.cli.options import parse
from instar.cli.tool import parser

ROOT = Path(__file__).parents[2]
FILES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/reference/*.md"))]
DOCUMENTS = [pytest.param(path.read_text(), id=path.name) for path in FILES]
KINDS = ("unit", "guest", "peers", "faults", "golden")


def named_paths(text):
    """The words in backquotes that look like a path of this repository."""
    roots = r"src/|tests/|tools/|docs/|examples/|guest/|\.ci/"
    return re.findall(rf"`((?:{roots})[\w./-]*)`", text)


def commands(text, program):
    """The arguments of every command of ``program`` in the code blocks of ``text``."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    shown = [line.strip().removeprefix("$ ") for line in lines]
    return [
        shlex.split(line, comments=True)[1:] for line in shown if line.startswith(f"{program} ")
    ]


@pytest.mark.parametrize("text", DOCUMENTS)
def test_paths_that_a_document_names_exist(text):
    assert [name for name in named_paths(text) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("text", DOCUMENTS)
def test_make_targets_that_a_document_names_exist(text):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z][\w-]*)", text)) | {
        words[0] for words in commands(text, "make")
    }
    assert named - targets - {f"test-{kind}" for kind in KINDS} == set()


@pytest.mark.parametrize("text", DOCUMENTS)
def test_commands_of_the_tool_that_a_document_shows_are_right(text):
    for words in commands(text, "instar"):
        parser().parse_args(words)


@pytest.mark.parametrize("text", DOCUMENTS)
def test_commands_of_the_monitor_that_a_document_shows_are_right(text):
    for words in commands(text, "instar-system"):
        parse(words)
