"""Which tests this machine does not allow; they are not collected, and the summary says so."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


def taps_missing() -> str:
    """Say why tap interfaces cannot be tried; empty if they can."""
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "no /dev/net/tun that may be opened"
    command = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-r", "-n"]
    try:
        done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "no unshare: install util-linux"
    return done.stderr.strip() if done.returncode else ""


NEEDS = {"test_update_tap.py": taps_missing}
NOT_RUN = pytest.StashKey[dict[str, str]]()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out a module that cannot run here."""
    why = NEEDS.get(collection_path.name, str)()
    if why:
        config.stash.setdefault(NOT_RUN, {})[collection_path.name] = why
        return True
    return None


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was left out."""
    for name, why in sorted(config.stash.get(NOT_RUN, {}).items()):
        terminalreporter.write_line(f"not run: tests/guest/{name}: {why}")
