"""A release before this one, as far as an update can tell: the same program, with its states in older versions."""

from __future__ import annotations

from pathlib import Path

from harness import PROGRAM

# What later versions added to a state is not in its records, and there are no steps to or from these versions. That is
# all that can be seen of an older release from outside, beside its version.
CHANGE = """
from instar import _version
_version.VERSION = {version!r}
from instar.cpr import own, state
at_home = own.release
own.release = lambda: at_home() + {version!r}
declare = state.state
def older(name, *, version, oldest=1):
    declared = declare(name, version=version, oldest=oldest)
    def change(cls):
        cls = declared(cls)
        cls.state_version = {versions!r}.get(name, version)
        cls.state_oldest = {oldest!r}.get(name, oldest)
        needed = cls.state_needed.items()
        cls.state_needed = {{n: f for n, f in needed if f.since <= cls.state_version}}
        return cls
    return change
state.state = older
"""


def make_program(
    folder: Path,
    version: str,
    versions: dict[str, int],
    oldest: dict[str, int] | None = None,
    more: str = "",
) -> Path:
    """Return a program that reads and writes these states in no version after these (and none before ``oldest``)."""
    lines = PROGRAM.read_text().splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if line.startswith("from instar."))
    change = CHANGE.format(version=version, versions=versions, oldest=oldest or {})
    path = folder / f"instar-{version}"
    path.write_text("".join([*lines[:at], change, more, *lines[at:]]))
    path.chmod(0o755)
    return path
