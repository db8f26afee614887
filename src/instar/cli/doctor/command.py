"""The command ``instar doctor``.

Source: own.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, ClassVar

from instar.cli.doctor.checks import CHECKS
from instar.cli.doctor.findings import judged, stoppers
from instar.cli.doctor.reading import read_facts
from instar.cli.doctor.report import lines, record
from instar.errors import InstarError

if TYPE_CHECKING:
    from instar.errors import Fault


class NotReadyError(InstarError):
    """The host lacks what every VM needs; what it is was shown."""

    code = "host-not-ready"
    fault: ClassVar[Fault] = "host"
    exit_status = 1


def doctor(*, as_json: bool) -> None:
    """Look at this host and print what it can do.

    Raises:
        NotReadyError: no VM can run here.
    """
    facts = read_facts()
    findings = judged(CHECKS, facts)
    if as_json:
        print(json.dumps(record(findings)))
    else:
        colored = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        print("\n".join(lines(facts, findings, colored=colored)))
    lacks = stoppers(findings)
    if lacks:
        names = ", ".join(check.id for check, _ in lacks)
        raise NotReadyError(f"no VM can run here: {names} missing, as shown")
