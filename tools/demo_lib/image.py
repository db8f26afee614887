"""Where the guest's kernel and initial file system are, fetched first if they are not on this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

from demo_lib.errors import DemoError
from demo_lib.releases import BIN

IMAGE = "debian"
TOOL = str(BIN / "instar")


def pull() -> None:
    """Fetch the image unless it is here already; progress goes to standard error.

    Raises:
        DemoError: it cannot be had; the tool has said why.
    """
    quiet = subprocess.run(
        [TOOL, "image", "path", IMAGE, "kernel"], capture_output=True, check=False
    )
    if quiet.returncode == 0:
        return
    done = subprocess.run([TOOL, "image", "pull", IMAGE], stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise DemoError(
            f"the guest image '{IMAGE}' could not be fetched; nothing was started",
            hint=f"'{TOOL} image pull {IMAGE}' tries again",
            status=done.returncode,
        )


def path(file: str) -> Path:
    """Return where ``file`` ("kernel" or "initrd") of the image is.

    Raises:
        DemoError: it is not there.
    """
    done = subprocess.run(
        [TOOL, "image", "path", IMAGE, file], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DemoError(done.stderr.strip() or f"there is no {file}", status=done.returncode)
    return Path(done.stdout.strip())
