"""Checks of what confines the monitor. Pure."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from instar.cli.doctor.findings import Check, Verdict, limited, missing, ok

if TYPE_CHECKING:
    from instar.cli.doctor.facts import Facts

TRUNCATE, DEVICES, SIGNALS = 3, 5, 6  # the ABI of Landlock that brought them
LACKS = {TRUNCATE: "truncating files", DEVICES: "ioctls on devices", SIGNALS: "signals"}


def _landlock(facts: Facts) -> Verdict:
    abi = facts.landlock
    if not abi:
        return missing(
            "the kernel has none, or it is off",
            "add 'landlock' to lsm= in GRUB_CMDLINE_LINUX (/etc/default/grub), update-grub, reboot",
        )
    lacks = [what for since, what in LACKS.items() if abi < since]
    if lacks:
        return limited(
            f"ABI {abi}, which does not limit {', '.join(lacks)}",
            "apt-get install -t bookworm-backports linux-image-amd64 (Linux 6.12 has ABI 6)",
        )
    return ok(f"ABI {abi}")


def _seccomp(facts: Facts) -> Verdict:
    return ok("filters can be set") if facts.seccomp else missing("the kernel has no filters")


def _namespaces(facts: Facts) -> Verdict:
    number = facts.user_namespaces
    if not number:
        return ok("can be made")
    found = f"cannot be made: {os.strerror(number).lower()}"
    if number == errno.ENOSPC:
        return missing(found, "sysctl user.max_user_namespaces=10000")
    if facts.container:
        return missing(found, "start the container with --security-opt seccomp=unconfined")
    return missing(found, "sysctl kernel.unprivileged_userns_clone=1")


CHECKS = (
    Check("landlock", "sandbox", "-sandbox on", _landlock),
    Check("seccomp", "sandbox", "-sandbox on", _seccomp),
    Check("user-namespaces", "sandbox", "passt and virtiofsd as an ordinary user, tests of tap", _namespaces),
)  # fmt: skip
