"""A guest on a tap interface of the host: its TCP connection goes on through updates."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from netns import NAMESPACE

WORLD = Path(__file__).parents[1] / "tap_world.py"
TRANSFER = WORLD.with_name("tap_transfer_world.py")
PATIENCE = 240  # seconds


@pytest.mark.parametrize(
    ("form", "checksum_offload", "pairs"),
    [("ifname", "1", 1), ("fd", "1", 1), ("plain", "0", 1), ("fds", "1", 2)],
)
def test_tcp_over_a_tap_is_byte_exact_across_20_updates(
    form: str, checksum_offload: str, pairs: int
) -> None:
    done = subprocess.run(
        [*NAMESPACE, sys.executable, WORLD, form],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["exact"]
    assert found["back"]
    assert found["received"] > found["seen"][-1] > found["seen"][0]
    assert found["features"][0] == checksum_offload
    assert found["lost_ms"] <= found["pause_ms"]
    assert sorted(found["queues"]) == sorted(
        f"{way}-{n}" for way in ("rx", "tx") for n in range(pairs)
    )
    assert ("ifname=it1,queues=3" in found["added"]) == (form == "fds")
    assert found["said"] == ""


def test_tap_goes_with_the_guest_from_program_to_program() -> None:
    done = subprocess.run(
        [*NAMESPACE, sys.executable, TRANSFER],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == {
        "refused": 1, "exact": True, "back": True, "ping": True, "taps": 1, "left": 0,
    }  # fmt: skip
