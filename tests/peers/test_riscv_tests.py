"""The conformance suite riscv-tests, as built in the folder that INSTAR_RISCV_TESTS names."""

import os
import subprocess
import sys
from pathlib import Path

RUNNER = Path(__file__).parents[2] / "tools" / "riscv_tests.py"


def test_riscv_tests_all_pass():
    folder = os.environ["INSTAR_RISCV_TESTS"]
    done = subprocess.run(
        [sys.executable, RUNNER, folder], capture_output=True, text=True, check=False, timeout=300
    )

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.endswith(" passed, 0 failed\n")
