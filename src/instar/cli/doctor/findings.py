"""Judging a host: facts in, findings out; nothing is read here.

Source: own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from instar.cli.doctor.facts import Facts

OK, LIMITED, MISSING = "ok", "limited", "missing"
LATER = "nothing in this version"  # the purpose of what is looked at for what is to come


class Verdict(NamedTuple):
    """What a check says of a host.

    Attributes:
        state: ``ok``, ``limited`` (it works, not fully), ``missing`` (it does not).
        found: What was found, one sentence without a full stop.
        mend: The command that mends it, or the sentence that says who can; empty if it is ok or nothing mends it.
    """

    state: str
    found: str
    mend: str = ""


class Check(NamedTuple):
    """One thing that is looked at.

    Attributes:
        id: Its stable name.
        group: The stable name of its group.
        purpose: What it is needed for.
        judge: Facts to verdict.
        required: No VM runs without.
    """

    id: str
    group: str
    purpose: str
    judge: Callable[[Facts], Verdict]
    required: bool = False


class Finding(NamedTuple):
    """A check and what it said."""

    check: Check
    verdict: Verdict


def ok(found: str) -> Verdict:
    """Return that nothing is to be done."""
    return Verdict(OK, found)


def limited(found: str, mend: str = "") -> Verdict:
    """Return that it works, but not fully."""
    return Verdict(LIMITED, found, mend)


def missing(found: str, mend: str = "") -> Verdict:
    """Return that it does not work."""
    return Verdict(MISSING, found, mend)


def judged(checks: Iterable[Check], facts: Facts) -> list[Finding]:
    """Return what each check says of a host, in their order."""
    return [Finding(check, check.judge(facts)) for check in checks]


def stoppers(findings: Sequence[Finding]) -> list[Finding]:
    """Return what has to be mended before any VM can run."""
    return [
        finding
        for finding in findings
        if finding.check.required and finding.verdict.state == MISSING
    ]
