"""What some tests need and not every machine has: where it lacks, the module is left out, and the summary says so."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

from instar.cli.doctor.kvm import guests_cannot_run


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


def riscv_tests_missing() -> str:
    """Say why the conformance suite cannot run; empty if it can."""
    folder = os.environ.get("INSTAR_RISCV_TESTS", "")
    if not folder:
        return "INSTAR_RISCV_TESTS names no folder of built riscv-tests (see tools/riscv_tests.py)"
    return "" if Path(folder).is_dir() else f"INSTAR_RISCV_TESTS: {folder} is no folder"


def program_missing(name: str, package: str) -> str:
    """Say that a program is not installed; empty if it is."""
    return "" if shutil.which(name) else f"no {name}: install {package}"


def daemons_missing() -> str:
    """Say why nobody can serve disks and folders; empty if somebody can."""
    return program_missing("qemu-storage-daemon", "qemu-system-common")


@functools.cache
def bare_guests_cannot_run() -> str:
    """Say why no guest can run under KVM; empty if a bare one can, which needs less than a kernel."""
    try:
        from kvm_guests import missing  # noqa: PLC0415 - its compiled part is built for some hosts only
    except ImportError as e:
        return str(e)
    return missing()


def kvm_missing() -> str:
    """Say why guests cannot run on this machine's KVM; empty if they can."""
    why = guests_cannot_run()
    return f"{why}: 'make test-kvm' emulates a machine that can" if why else ""


NEEDS = {
    "kvm/": kvm_missing,  # all of the folder
    "guest/test_kvm_bare.py": bare_guests_cannot_run,
    "guest/test_update_tap.py": taps_missing,
    "peers/test_update_passt.py": lambda: program_missing("passt", "passt"),
    "peers/test_vhost_user.py": daemons_missing,
    "peers/test_disk_recipes.py": daemons_missing,
    "peers/test_riscv_tests.py": riscv_tests_missing,
    "peers/test_binutils.py": lambda: program_missing(
        "riscv64-linux-gnu-objdump", "binutils-riscv64-linux-gnu"
    ),
    "peers/test_qemu_user.py": lambda: program_missing("qemu-riscv64", "qemu-user"),
}
