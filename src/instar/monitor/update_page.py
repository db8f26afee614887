"""The reference page of updates, written from the tables that the code walks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from instar.cpr.lifecycle import PHASES
from instar.migration.tables import CHECK, EXEC, NORMAL
from instar.migration.takeover import IF_LOST, TAKEOVER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from instar.cpr.lifecycle import Table
    from instar.migration.takeover import Step

_HEAD: Final = """\
# An update, step by step

Written by `tools/gen_docs.py` from the tables in `src/instar/cpr/lifecycle.py`, `src/instar/migration/tables.py`
and `src/instar/migration/takeover.py`. Why it is so: [0008](../decisions/0008-an-update-that-cannot-lose-the-vm.md).

`update [-d] [--check] [program]` (HMP), `x-update` (QMP) and `instar update VM [PROGRAM]` make the new command line
from what runs: what was added, removed or changed since the start is named by options where there are any, so `ps`
shows the truth and the next update begins from it. What has no option (links, the balloon's target, names of `getfd`)
is state, and the size of a disk is that of its file. `-netdev none,id=ID` is a back end that was deleted while its
card is still there; a disk of `-blockdev` whose limits were changed is named by `-drive`, which can say them. `mode`
and `cpr-exec-command` are neither used nor changed.

A QMP socket serves one client at a time. `instar update` says on standard error if no greeting has come after 3 s, for
another client may be connected there, and gives up after 10 s with exit status 3: nothing was asked of the VM then.

With a hand-written `cpr-exec-command` the rehearsal finds out whether it is the same machine. With
`x-update-rehearsal` off, a command that executes this very release is parsed by its own rules, of any other only that
it has `-incoming` is seen.

A program that is older is given the states in the versions that it reads: it tells them in the rehearsal, which is then
done again with these (`new-program-older`). Where this program does not write one of them, or something is in use that
an older version has no place for, the update is refused, naming state, versions and object. The notes of the report
tell what was written otherwise, and what the older program has no place for. With `x-update-rehearsal` off nobody knows
what it reads: it refuses the state after `exec`, with the version that it needs, and the old program goes on.

## Phases

Each phase tells its begin and its end by UPDATE_PHASE, the whole by UPDATE_COMPLETED, UPDATE_FAILED or
UPDATE_CHECKED. As with QEMU's MIGRATION, whose order is kept, they are sent only with the migration capability
`events`: a client that did not ask for them sees what it saw before. Those of the phases after `exec` are sent when
the guest runs, by the program that goes on; in cpr-transfer the source tells all of its own, the target `load` and
`resume`, both how it ended. `query-migrate` (`x-update`) has all of it afterwards, with or without
that capability.
"""


def update_page() -> str:
    """Return ``docs/reference/update.md``."""
    out = [_HEAD, "| phase | guest | what happens | if it fails |", "|---|---|---|---|"]
    for name, paused, what, failure in PHASES:
        out.append(f"| {name} | {'stands still' if paused else 'runs'} | {what} | {failure} |")
    out += [
        "\n## The old program\n",
        "If a step fails, the undos of all begun steps are done in reverse.\n",
    ]
    out += _rows(EXEC)
    out.append("\n`--check` does these, then undoes all of them:\n")
    out.append(", ".join(f"`{row.event}`" for row in CHECK.rows) + ".")
    out.append("\nMode `normal` does these:\n")
    out.append(", ".join(f"`{row.event}`" for row in NORMAL.rows) + ".")
    out += ["\n## The new program\n", *_steps(TAKEOVER)]
    out += ["\n## If the new program is lost before it commits\n", *_steps(IF_LOST)]
    return "\n".join(out) + "\n"


def _rows(table: Table) -> list[str]:
    lines = ["| phase | step | action | undo |", "|---|---|---|---|"]
    for row in table.rows:
        undo = f"`{row.undo}`" if row.undo else ""
        lines.append(f"| {row.phase} | {row.event} | `{row.action}` | {undo} |")
    return lines


def _steps(steps: Sequence[Step]) -> list[str]:
    lines = ["| phase | step | done by | what happens | if it fails |", "|---|---|---|---|---|"]
    for step in steps:
        cells = (step.phase, step.event, f"`{step.done_by}`", step.what, step.failure)
        lines.append(f"| {' | '.join(cells)} |")
    return lines
