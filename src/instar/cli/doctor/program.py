"""Checks of what Instar itself needs. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from instar.cli.doctor.findings import Check, Verdict, limited, missing, ok

if TYPE_CHECKING:
    from instar.cli.doctor.facts import Facts

OLDEST_KERNEL = (5, 10)  # pidfds and close_range
GOOD_KERNEL = (5, 14)  # populating memory in the background
OLDEST_PYTHON = (3, 11)
NEEDED_PARTS = ("instar.cpu.rv64._core", "instar.virtio.queue")


def kernel_version(release: str) -> tuple[int, int]:
    """Return the first two numbers of a kernel's release; (0, 0) if there are none."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _kernel(facts: Facts) -> Verdict:
    found = f"{facts.system} {facts.release}"
    version = kernel_version(facts.release)
    if facts.system != "Linux" or version < OLDEST_KERNEL:
        oldest = ".".join(map(str, OLDEST_KERNEL))
        return missing(
            f"{found}, Linux {oldest} is the oldest that works",
            "apt-get install linux-image-amd64" if facts.system == "Linux" else "",
        )
    if version < GOOD_KERNEL:
        return limited(f"{found}: after an update memory is not mapped again in the background")
    return ok(found)


def _machine(facts: Facts) -> Verdict:
    if facts.machine != "x86_64":
        return limited(f"{facts.machine}: Instar was never tried on it, x86_64 is what it knows")
    return ok(f"x86_64, {facts.processors} processor{'s' if facts.processors > 1 else ''}")


def _python(facts: Facts) -> Verdict:
    found = f"Python {'.'.join(map(str, facts.python))}"
    if facts.python[:2] < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return missing(f"{found}, {oldest} is the oldest that works", "apt-get install python3")
    return ok(found)


def _parts(facts: Facts) -> Verdict:
    if not facts.unbuilt:
        return ok("all are there")
    found = f"not compiled for this Python: {', '.join(facts.unbuilt)}"
    if set(NEEDED_PARTS) & set(facts.unbuilt):
        return missing(found, "make build")
    return limited(f"{found}; what they do is done without, slower, or not at all", "make build")


CHECKS = (
    Check("kernel", "program", "everything", _kernel, required=True),
    Check("machine", "program", "everything", _machine),
    Check("python", "program", "everything", _python, required=True),
    Check("compiled-parts", "program", "CPU back ends, disks and networks, short pauses", _parts, required=True),
)  # fmt: skip
