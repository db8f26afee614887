"""What ``instar doctor`` shows: lines for people, a record for programs, the reference page. Pure.

Source: own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instar._version import VERSION
from instar.cli.doctor.checks import CHECKS, GROUPS
from instar.cli.doctor.findings import LIMITED, MISSING, OK, stoppers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from instar.cli.doctor.facts import Facts
    from instar.cli.doctor.findings import Finding

COLORS = {OK: "32", LIMITED: "33", MISSING: "31"}
WIDE = max(len(check.id) for check in CHECKS)
PAGE = """\
# What a host can do: `instar doctor`

Made by `make docs` from the table of checks in `src/instar/cli/doctor/`.

`instar doctor` looks at the host and says of each thing whether it is there (`ok`), there in part (`limited`) or not
there (`missing`), what it is needed for, and which command mends it. Nothing on the host is changed. Commands are
Debian's, for root unless they say otherwise.

Exit status: 0 if all that a plain VM needs is there, 1 if something of that is missing. A plain VM runs on the software
CPU: it needs no KVM, no network, no sandbox, so only the checks that are marked *needed* count.

`instar doctor --json` prints one object on one line:

| key | meaning |
|---|---|
| `program` | version of Instar |
| `ready` | all that a plain VM needs is there |
| `checks` | list of what was looked at, in the order of this page |
| `checks[].id`, `checks[].group` | names as on this page; they do not change |
| `checks[].state` | `ok`, `limited` or `missing` |
| `checks[].needed` | no VM runs without |
| `checks[].found` | a sentence for people; it may change |
| `checks[].for` | what it is needed for; it may change |
| `checks[].mend` | a command or a sentence, empty if there is nothing to mend or nothing mends it; it may change |

Keys may be added, checks too; none goes away within a major version.
"""


def record(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    return {
        "program": VERSION,
        "ready": not stoppers(findings),
        "checks": [
            {
                "id": check.id,
                "group": check.group,
                "state": verdict.state,
                "needed": check.required,
                "found": verdict.found,
                "for": check.purpose,
                "mend": verdict.mend,
            }
            for check, verdict in findings
        ],
    }


def lines(facts: Facts, findings: Sequence[Finding], *, colored: bool) -> Iterator[str]:
    """Yield the report, line by line; of what is ok there is one line."""
    yield f"Instar {VERSION} on {facts.system} {facts.release}, {facts.machine}: {summary(findings)}"
    group = ""
    for check, verdict in findings:
        if check.group != group:
            group = check.group
            yield ""
            yield f"{group}: {GROUPS[group]}"
        state = f"{verdict.state:<7}"
        shown = f"\x1b[{COLORS[verdict.state]}m{state}\x1b[0m" if colored else state
        yield f"  {shown}  {check.id:<{WIDE}}  {verdict.found}"
        if verdict.state != OK:
            yield f"           needed for: {check.purpose}"
        if verdict.mend:
            yield f"           mend: {verdict.mend}"


def summary(findings: Sequence[Finding]) -> str:
    """Return one sentence about the host."""
    states = [verdict.state for _, verdict in findings]
    counts = ", ".join(f"{states.count(state)} {state}" for state in (OK, LIMITED, MISSING))
    lacks = stoppers(findings)
    if lacks:
        return f"no VM can run, it lacks {', '.join(check.id for check, _ in lacks)}; {counts}"
    return f"a VM can run; {counts}"


def reference_page() -> str:
    """Return ``docs/reference/doctor.md``."""
    made = [PAGE]
    for group, title in GROUPS.items():
        made += [f"## {group}: {title}", "", "| id | needed for |", "|---|---|"]
        made += [
            f"| `{check.id}` | {check.purpose}{'; *needed*' if check.required else ''} |"
            for check in CHECKS
            if check.group == group
        ]
        made.append("")
    return "\n".join(made)
