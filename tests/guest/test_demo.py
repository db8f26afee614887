"""The demo, as a newcomer with a pipe sees it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, str(ROOT / "tools" / "demo"), "--json"]
PATIENCE = 300  # seconds


@pytest.fixture(scope="module")
def said():
    """What the demo printed, as objects."""
    done = subprocess.run(
        DEMO,
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def events(said, name):
    return [line for line in said if line["event"] == name]


def test_demo_updates_there_and_back(said):
    versions = [(u["old-version"], u["new-version"]) for u in events(said, "update")]
    (here, there), back = versions
    assert back == (there, here)
    assert here != there


def test_demo_keeps_its_process(said):
    pids = {u[key] for u in events(said, "update") for key in ("pid-before", "pid-after")}
    assert len(pids) == 1


def test_demo_shows_where_the_pause_went(said):
    names = [[phase["name"] for phase in u["phases"]] for u in events(said, "update")]
    phases = ["prepare", "rehearse", "stop", "save", "exec", "build", "load", "resume", "settle"]
    assert names == [phases] * 2


def test_demo_guest_noticed_nothing(said):
    (done,) = events(said, "done")
    assert done["ok"]
    assert (done["counter-missing"], done["checksums-wrong"], done["kernel-complaints"]) == (
        0,
        0,
        [],
    )
    assert done["counter"] > 0
    assert done["checksums"] > 0
    assert (done["updates"], done["monitor-connections"], done["exit-status"]) == (2, 1, 0)


def test_demo_leaves_nothing_behind(said):
    (step,) = [line["text"] for line in events(said, "step") if "update 1:" in line["text"]]
    _, _, monitor, program = map(Path, step.split("'")[1].split())
    assert not monitor.parent.exists()
    assert not program.parent.exists()
