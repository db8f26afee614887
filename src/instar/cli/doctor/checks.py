"""All that is looked at, in the order in which it is shown; ``docs/reference/doctor.md`` is made from it."""

from __future__ import annotations

from instar.cli.doctor import guests, host, memory, program, sandbox

GROUPS = {
    "program": "Instar itself",
    "kvm": "guests on the host's own processor",
    "memory": "memory of guests",
    "network": "networks and sockets of guests",
    "limits": "what this process is allowed",
    "space": "room for files",
    "sandbox": "confining the monitor",
    "peers": "programs that work with Instar or are compared with it",
}
_ALL = (*program.CHECKS, *guests.CHECKS, *memory.CHECKS, *host.CHECKS, *sandbox.CHECKS)
CHECKS = tuple(check for group in GROUPS for check in _ALL if check.group == group)
