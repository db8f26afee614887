"""Help texts and the reference page come from the table and say everything in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from instar.cli.options.entries import BY_NAME, OPTIONS
from instar.cli.options.help import help_text, reference_page

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "options.md"


def test_help_overview_names_every_option_and_alias() -> None:
    text = help_text("help")
    assert [name for name in BY_NAME if f"-{name}" not in text] == []


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_help_of_an_option_names_every_key_and_type(option) -> None:
    text = help_text(option.name)
    keys = [key for keys in (option.keys, *option.variants.values()) for key in keys]
    assert [
        word for word in (*option.variants, *(key.name for key in keys)) if word not in text
    ] == []


@pytest.mark.parametrize("topic", ["help", *(option.name for option in OPTIONS)])
def test_help_lines_fit_a_terminal(topic: str) -> None:
    assert [line for line in help_text(topic).splitlines() if len(line) > 79] == []


def test_table_has_each_name_once_and_no_key_twice() -> None:
    names = [name for option in OPTIONS for name in (option.name, *option.aliases)]
    keys = [
        [key.name for key in keys]
        for option in OPTIONS
        for keys in (option.keys, *option.variants.values())
    ]
    assert len(names) == len(set(names))
    assert [group for group in keys if len(group) != len(set(group))] == []


def test_reference_page_is_the_one_in_the_repository() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference_page(), "run tools/gen_options_doc.py"
