"""Which peers are on this machine; what needs an absent one is not collected, and the summary says so."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def riscv_tests_missing() -> str:
    """Say why the conformance suite cannot run; empty if it can."""
    folder = os.environ.get("INSTAR_RISCV_TESTS", "")
    if not folder:
        return "INSTAR_RISCV_TESTS names no folder of built riscv-tests (see tools/riscv_tests.py)"
    return "" if Path(folder).is_dir() else f"INSTAR_RISCV_TESTS: {folder} is no folder"


def objdump_missing() -> str:
    """Say why encodings cannot be compared; empty if they can."""
    found = shutil.which("riscv64-linux-gnu-objdump")
    return "" if found else "no riscv64-linux-gnu-objdump: install binutils-riscv64-linux-gnu"


def qemu_missing() -> str:
    """Say why random programs cannot be compared; empty if they can."""
    return "" if shutil.which("qemu-riscv64") else "no qemu-riscv64: install qemu-user"


def daemons_missing() -> str:
    """Say why nobody can serve disks and folders; empty if somebody can."""
    found = shutil.which("qemu-storage-daemon")
    return "" if found else "no qemu-storage-daemon: install qemu-system-common"


def passt_missing() -> str:
    """Say why user-mode networking cannot be tried; empty if it can."""
    return "" if shutil.which("passt") else "no passt: install passt"


NEEDS = {
    "test_update_passt.py": passt_missing,
    "test_vhost_user.py": daemons_missing,
    "test_disk_recipes.py": daemons_missing,
    "test_riscv_tests.py": riscv_tests_missing,
    "test_binutils.py": objdump_missing,
    "test_qemu_user.py": qemu_missing,
}
NOT_RUN = pytest.StashKey[dict[str, str]]()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out a module whose peer is absent."""
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
        terminalreporter.write_line(f"not run: tests/peers/{name}: {why}")
