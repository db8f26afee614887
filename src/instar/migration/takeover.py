"""The new program's half of an update, as a table: what is done where, and who goes on with the guest if it fails.

The old program's tables (:mod:`instar.migration.outgoing`) are walked by an executor; here the steps are plain calls,
for nothing may cost time while the guest stands still. The table is for documentation and tests: each row names what
does it, and a test looks that this exists.

Not on the resume path. Source: own; docs/decisions/0008.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Step(NamedTuple):
    """One step of the program after ``exec``.

    Attributes:
        phase: One of :data:`instar.cpr.lifecycle.PHASES`; ``build`` is the part of ``load`` before any state is read.
        event: Its name.
        done_by: Dotted name of the function or method.
        what: What happens.
        failure: What follows if it fails.
    """

    phase: str
    event: str
    done_by: str
    what: str
    failure: str


WAY_BACK: Final = "way back: the old program is executed again"
TOO_LATE: Final = "the program ends: the guardian was faster and has the guest"
ALONE: Final = "reported; the guest goes on here"

TAKEOVER: Final = (
    Step("exec", "adopt", "instar.cpr.adopted.adopt",
         "the descriptors are found by name, each the file that it was", "guardian: it starts the old program"),
    Step("build", "limit", "instar.cli.system._limit", "an alarm is set for x-update-timeout", WAY_BACK),
    Step("build", "parse", "instar.cli.system._understood", "the command line is understood", WAY_BACK),
    Step("build", "assemble", "instar.cli.assembly.assemble", "the machine is made over the descriptors", WAY_BACK),
    Step("build", "host", "instar.migration.migration.Migration.restore_host",
         "connections, monitors and parameters are as they were", WAY_BACK),
    Step("load", "check", "instar.migration.incoming.Incoming.check",
         "all state is read and checked; nothing is changed yet", WAY_BACK),
    Step("load", "bridge-back", "instar.migration.incoming.Incoming._end_bridge",
         "the vCPUs come back from the bridge's helper, where they ran on", WAY_BACK),
    Step("load", "apply", "instar.migration.incoming.Incoming.load", "all state is applied", WAY_BACK),
    Step("resume", "ready", "instar.machine.machine.Machine.get_ready", "the disks are taken, a thread is started",
         WAY_BACK),
    Step("resume", "commit", "instar.cpr.adopted.Adopted.commit",
         "the lease decides that this program has the guest; the old state is stale from here on", TOO_LATE),
    Step("resume", "run", "instar.machine.machine.Machine.resume", "the guest runs", "it is tried once more"),
    Step("settle", "dismiss", "instar.cpr.adopted.Adopted.settle",
         "the guardian is let go, and what only a way back needed is closed", ALONE),
    Step("settle", "monitors", "instar.cli.vm.Vm.settle", "monitors are made, events that were held are sent", ALONE),
    Step("settle", "unclaimed", "instar.migration.migration.Migration.settled",
         "what nobody asked for is closed, the report is sent", ALONE),
)  # fmt: skip
IF_LOST: Final = (
    Step("any before commit", "go-back", "instar.cpr.adopted.Adopted.go_back",
         "an error, a signal to end, or the alarm: the old program is executed in this process, with the same state",
         "guardian"),
    Step("any before commit", "guardian", "instar.cpr.guardian.Guardian.run",
         "the program crashed, hangs or is none of ours: it is ended, and the old one started in another process",
         "the host refuses: told on standard error"),
)  # fmt: skip
