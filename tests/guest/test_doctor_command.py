"""``instar doctor`` on the host that runs the tests."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

TOOL = Path(sys.executable).parent / "instar"
FEW = 64  # descriptors; fewer than any machine needs


def doctor(*words: str, **options) -> subprocess.CompletedProcess[str]:
    command = [str(TOOL), "doctor", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def checks(output: str) -> dict[str, dict]:
    return {row["id"]: row for row in json.loads(output)["checks"]}


def test_doctor_of_a_host_that_runs_tests_says_that_a_vm_can_run():
    done = doctor("--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["ready"] is True
    found = checks(done.stdout)
    assert found["memfd"]["state"] == "ok"
    assert os.uname().release in found["kernel"]["found"]


def test_doctor_in_a_pipe_prints_plain_lines():
    done = doctor()
    assert "\x1b" not in done.stdout
    assert done.stdout.startswith("Instar ")


def test_doctor_where_no_vm_can_run_says_what_stops_it_and_exits_with_1():
    def few_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, FEW))

    done = doctor("--json", preexec_fn=few_descriptors)
    assert done.returncode == 1
    assert done.stderr == "instar: no VM can run here: open-files missing, as shown\n"
    assert json.loads(done.stdout)["ready"] is False
    assert checks(done.stdout)["open-files"]["mend"] == "ulimit -n 1024, as root"
