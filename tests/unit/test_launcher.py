"""The launchers of tools/launcher.py: what a first line can carry, and paths that it cannot."""

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "launcher.py"


@pytest.fixture(scope="module")
def launcher():
    spec = importlib.util.spec_from_file_location("launcher", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_script_for_a_plain_path_names_the_interpreter_in_its_first_line(launcher):
    text = launcher.script("/opt/v/bin/python", "-IS", "/opt/src", "instar.cli.system")
    assert text.splitlines() == [
        "#!/opt/v/bin/python -IS",
        "import sys",
        "sys.path.insert(0, '/opt/src')",
        "from instar.cli.system import main",
        "sys.exit(main())",
    ]


@pytest.mark.parametrize("python", ["/opt/my tools/python", f"/{'deep/' * 30}python"])
def test_script_for_a_path_that_no_first_line_carries_goes_through_sh(launcher, python):
    text = launcher.script(python, "-I", "/opt/src", "instar.cli.tool")
    assert text.splitlines()[:3] == ["#!/bin/sh", f'\'\'\'exec\' "{python}" -I "$0" "$@"', "' '''"]
    compile(text, "launcher", "exec")
