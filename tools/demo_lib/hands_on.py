"""The demo without the demonstrator: guest and monitor share the person's terminal, the releases have short names."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

from demo_lib.run import machine_arguments, make_disk

if TYPE_CHECKING:
    from pathlib import Path

    from demo_lib.releases import Release
    from demo_lib.screen import Screen

_HELP = """\
The guest's console and Instar's monitor share this terminal:
    Ctrl-A c   switches between them
    Ctrl-A x   ends it all
To update, type this in the monitor (and update {old} to come back):
    info version
    update {new}
    info migrate
"""


def hand_over(screen: Screen, folder: Path, old: Release, new: Release) -> int:
    """Start the guest on this terminal; returns instar-system's exit status when it ends.

    Args:
        screen: Where to say how it works.
        folder: Empty; the VM's working folder.
        old: The release to start.
        new: The one to update to.
    """
    make_disk(folder)
    screen.step(f"Instar {old.version} boots Debian")
    for line in _HELP.format(old=old.program, new=new.program).splitlines():
        screen.guest(line)
    # Ctrl-C on the terminal is the VM's; it is gone before we are.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    vm = subprocess.Popen([old.program, *machine_arguments(folder)], cwd=folder)
    try:
        return vm.wait()
    finally:
        if vm.poll() is None:
            vm.terminate()
            vm.wait()
