"""The cases of the fault matrix, generated from the tables of an update: every step x every failure.

Left out by rule, not by case (docs/reference/failures.md):

* The end of the old program before it handed everything to the guardian (row ``arm``) is no failed update: the same
  happens to a monitor that is killed on any other day.
* SIGTERM, SIGINT and SIGHUP tell a monitor to end; signals that end every program that does not know them (SIGUSR1) do
  that here, too.
* After the commit the new program is the monitor, and its end is the machine's.
* One failure a case. Who ends the guardian *and* the new program has ended both.
"""

from __future__ import annotations

import struct

from fault_lane import GUARDIAN, REFUSED, STORMS, UNDONE, UPDATED, WAY_BACK, Case
from fault_places import CHILD_STEPS, NEW_STEPS, SETTLE_STEPS

from instar.migration.tables import EXEC

RAISED = ("raise", "memory", "ENOSPC", "EMFILE", "ENOMEM", "EPERM")
ENDED = ("kill", "segv", "end")
STUCK = ("stop", "hang", "deaf")
SHORT_MS = 2500  # for who is stuck
REHEARSAL_MS = 1500
EVENTS = [row.event for row in EXEC.rows]
STOPPED = EVENTS.index("stop-vm")
ARMED = EVENTS.index("arm")
TRIED = EVENTS.index("new-program")
GUARDED = EVENTS.index("guardian-ready")
FOUND = EVENTS.index("guardian-there")
_BEFORE_US = ("exec", "adopt", "limit")  # steps in which there is no alarm yet
_ELF = struct.Struct("<16sHHIQQQIHHHHHH")
_IDENT = b"\x7fELF\x02\x01\x01" + bytes(9)
_RISCV = _ELF.pack(_IDENT, 2, 243, 1, 0x10000, 0, 0, 0, 64, 56, 0, 64, 0, 0)
OTHERS = {
    "bin-true": (("/bin/true",), b""),
    "bin-cat": (("/bin/cat", "/dev/null"), b""),
    "shell-script": (("{}",), b"#!/bin/sh\nexit 0\n"),
    "shell-script-that-kills-itself": (("{}",), b"#!/bin/sh\nkill -9 $$\n"),
    "interpreter-that-segfaults": (("/bin/sh", "-c", "kill -SEGV $$"), b""),
    "other-architecture": (("{}",), _RISCV),
    "torn-program": (("{}",), _IDENT[:7]),
    "python-without-us": (("/usr/bin/env", "python3", "-c", "import instar_gone"), b""),
}


def _undone(at: int) -> tuple[str, ...]:
    return (UNDONE,) if at >= STOPPED else (REFUSED,)


def _old_rows() -> list[Case]:
    """The old program fails in a row of the table, before or after what it does there."""
    cases = []
    for at, row in enumerate(EXEC.rows):
        rehearsal = "program" in row.event  # elsewhere it makes no difference
        for kind in RAISED:
            before = (REFUSED, UNDONE) if at == STOPPED else _undone(at)  # the guest ran yet
            cases.append(Case(f"old/+{row.event}", kind, before, rehearsal))
            if row.event != "exec":  # nothing comes back from there
                cases.append(Case(f"old/{row.event}+", kind, _undone(at), rehearsal))
    cases += [
        Case(place, kind, (GUARDIAN,), timeout_ms=SHORT_MS)
        for place in ("old/arm+", "old/+exec")
        for kind in (*ENDED, *STUCK)
    ]
    return [*cases, Case("old/+exec", "forbid", (UNDONE,))]


def _new_steps() -> list[Case]:
    """The new program fails in one of its steps until the commit."""
    cases = []
    for step in NEW_STEPS:
        place, alarmed = f"new/{step}", step not in _BEFORE_US
        noticed = (WAY_BACK,) if step not in ("exec", "adopt") else (GUARDIAN,)
        cases += [Case(place, kind, noticed) for kind in (*RAISED, "exit")]
        cases += [Case(place, kind, (GUARDIAN,)) for kind in ENDED]
        for kind in STUCK:
            late = (WAY_BACK, GUARDIAN) if kind == "hang" and alarmed else (GUARDIAN,)
            cases.append(Case(place, kind, late, timeout_ms=SHORT_MS))
        cases += [Case(place, kind, (UPDATED, WAY_BACK, GUARDIAN)) for kind in ("nofile", "nomem")]
    return cases


def _states() -> list[Case]:
    """The state that the new program finds is not the one that was written, or newer than it knows."""
    cases = [Case("old/+arm", kind, (WAY_BACK,)) for kind in ("torn", "flipped")]
    cases.append(Case("new/check", "version", (WAY_BACK,)))
    return [*cases, Case("child-new/check", "version", (REFUSED,), rehearsal=True)]


def _rehearsals() -> list[Case]:
    """A rehearsal fails: of the new program, or of the way back."""
    return [
        Case(f"child-{whose}/{step}", kind, (REFUSED,), rehearsal=True, timeout_ms=REHEARSAL_MS)
        for whose in ("new", "old")
        for step in CHILD_STEPS
        for kind in ("raise", "ENOMEM", "kill", "end", "stop")
        if kind != "stop" or step in ("exec", "check")
    ]


def _guardians() -> list[Case]:
    """The guardian is killed or stopped."""
    # One that has ended is noticed before the stop; a signal may take a moment, and then when it is to be armed.
    cases = [
        (f"old/+{event}", (UPDATED, REFUSED, UNDONE) if at <= FOUND else (UPDATED, UNDONE))
        for at, event in enumerate(EVENTS)
        if GUARDED <= at <= ARMED
    ]
    cases += [(f"new/{step}", (UPDATED,)) for step in NEW_STEPS]
    return [
        Case(place, f"guardian-{how}", expected)
        for place, expected in cases
        for how in ("kill", "stop")
    ]


def _settling() -> list[Case]:
    """The new program fails after its commit: the guest runs there, and goes on."""
    return [Case(f"settled/{step}", kind, (UPDATED,)) for step in SETTLE_STEPS for kind in RAISED]


def _outside() -> list[Case]:
    """What comes from outside: signals, limits of the host, and programs that are none of ours."""
    cases = [
        Case("", storm, (UPDATED, WAY_BACK, GUARDIAN), rehearsal)
        for storm in STORMS
        for rehearsal in (False, True)
    ]
    # A limit of the host is over after a while, but who is executed meanwhile has it for good.
    cases += [Case(f"old/+{event}", "nofile", (REFUSED,), True) for event in EVENTS[:TRIED]]
    some = (REFUSED, UNDONE, WAY_BACK, GUARDIAN, UPDATED)
    cases += [Case(f"old/+{event}", "nofile", some, True) for event in EVENTS[TRIED:]]
    for name, (command, text) in OTHERS.items():
        for expected, rehearsal in (((REFUSED, UNDONE, GUARDIAN), False), ((REFUSED,), True)):
            cases.append(Case("", name, expected, rehearsal, command=command, text=text))
    return cases


TICKER = [
    *_old_rows(),
    *_new_steps(),
    *_states(),
    *_rehearsals(),
    *_guardians(),
    *_settling(),
    *_outside(),
]
LINUX = [
    Case("old/+new-program-answered", "ENOSPC", (REFUSED,), rehearsal=True),
    Case("child-new/check", "kill", (REFUSED,), rehearsal=True),
    Case("old/write+", "ENOSPC", (UNDONE,)),
    Case("old/+exec", "EPERM", (UNDONE,)),
    Case("old/+exec", "kill", (GUARDIAN,)),
    Case("new/assemble", "raise", (WAY_BACK,)),
    Case("new/disks", "raise", (WAY_BACK,)),
    Case("new/commit", "hang", (WAY_BACK, GUARDIAN), timeout_ms=SHORT_MS),
    Case("new/apply", "segv", (GUARDIAN,)),
    Case("new/commit", "kill", (GUARDIAN,)),
    Case("new/check", "guardian-kill", (UPDATED,)),
    Case("settled/monitors", "raise", (UPDATED,)),
]
