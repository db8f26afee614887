"""Where ``instar-system`` begins: before anything else is imported, what was prepared for this start is taken over."""

from __future__ import annotations

import gc
import os

from instar.prepared import take_over


def main() -> int:
    """Run the program; returns the exit status."""
    gc.disable()  # importing makes nothing that a collection could find; on again once settled
    take_over(os.environ)
    from instar.cli.system import main as run  # noqa: PLC0415 - see above

    return run()
