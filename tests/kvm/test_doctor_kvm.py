"""``instar doctor`` where guests can run on KVM."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TOOL = Path(sys.executable).parent / "instar"


def test_doctor_where_kvm_runs_guests_says_so():
    output = subprocess.check_output([str(TOOL), "doctor", "--json"], text=True)
    states = {row["id"]: row["state"] for row in json.loads(output)["checks"]}
    of_kvm = ("kvm-processor", "kvm-device", "kvm-version", "kvm-guests")
    assert [states[name] for name in of_kvm] == ["ok"] * 4
