"""What a real process has imported when the program's own modules are in: nothing but the list, and ours."""

import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
# docs/decisions/0001-pieces-and-contracts.md, "The resume path".
LIST = (
    "sys os time errno struct select fcntl mmap zlib binascii _heapq gc stat "
    "_thread _socket _signal termios array itertools operator __future__"
)
CHILD = """
import sys
for name in sys.argv[2].split():
    __import__(name)
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
import instar.cli.system
print(*sorted(set(sys.modules) - before))
"""
OF_COMPILED_MODULES = ("cython_runtime", "_cython_")  # what Cython makes for itself


def test_start_of_the_program_imports_the_list_and_itself_only():
    command = [sys.executable, "-IS", "-c", CHILD, SOURCE, LIST]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    others = [name for name in done.stdout.split() if not name.startswith("instar")]
    assert [name for name in others if not name.startswith(OF_COMPILED_MODULES)] == []
