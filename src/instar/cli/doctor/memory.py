"""Checks of what guests' memory is made of. Pure."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from instar.cli.doctor.facts import UNLIMITED
from instar.cli.doctor.findings import LATER, Check, Verdict, limited, missing, ok

if TYPE_CHECKING:
    from instar.cli.doctor.facts import Facts

LEAST = 192 << 20  # bytes: a guest of 128 MiB and the monitor
GOOD = 512 << 20
USUAL_HUGE = 2 << 20


def size(count: int) -> str:
    """Return a number of bytes for people."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << shift:
            return f"{count / (1 << shift):.1f} {unit}".replace(".0 ", " ")
    return f"{count} bytes"


def _free(facts: Facts) -> Verdict:
    bound = facts.cgroup.memory
    room = facts.memory if bound == UNLIMITED else min(facts.memory, bound)
    by = ", by its control group" if room == bound else ""
    found = f"{size(room)} can be had{by}"
    if room < LEAST:
        return missing(f"{found}, {size(LEAST)} is what a small guest needs")
    return ok(found) if room >= GOOD else limited(f"{found}, enough for a small guest only")


def _memfd(facts: Facts) -> Verdict:
    if not facts.memfd:
        return ok("a memfd can be made")
    mend = "sysctl vm.memfd_noexec=1" if facts.memfd == errno.EACCES else ""
    return missing(f"no memfd can be made: {os.strerror(facts.memfd).lower()}", mend)


def _huge(facts: Facts) -> Verdict:
    there = {page: count for page, count in facts.huge_pages.items() if count[0]}
    shown = ", ".join(f"{free} of {all_} of {size(page)}" for page, (all_, free) in there.items())
    if any(free for _, free in there.values()):
        return ok(f"free: {shown}")
    if there:
        return limited(f"all are in use: {shown}", "sysctl vm.nr_hugepages=NUMBER, a larger one")
    if not facts.huge_pages:
        return missing("the kernel has none")
    return missing("none are reserved", "sysctl vm.nr_hugepages=512 (1 GiB in pages of 2 MiB)")


def _transparent(facts: Facts) -> Verdict:
    if facts.shmem_huge in ("always", "within_size", "advise", "force"):
        return ok(f"shmem_enabled is {facts.shmem_huge}")
    if not facts.shmem_huge:
        return missing("the kernel has no transparent huge pages")
    path = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
    return missing(f"shmem_enabled is {facts.shmem_huge}", f"echo advise > {path}")


def _locked(facts: Facts) -> Verdict:
    soft, hard = facts.locked_memory
    if soft == UNLIMITED or soft >= facts.memory > 0:
        return ok("no limit that binds")
    mend = "ulimit -l unlimited" if hard == UNLIMITED else "ulimit -l unlimited, as root"
    return limited(f"{size(soft)} can be locked", mend)


def _faults(facts: Facts) -> Verdict:
    if not facts.userfaultfd:
        return ok("page faults can be handled")
    found = (
        f"page faults of the kernel cannot be handled: {os.strerror(facts.userfaultfd).lower()}"
    )
    if facts.userfaultfd in (errno.EPERM, errno.EACCES):
        return missing(found, "sysctl vm.unprivileged_userfaultfd=1")
    return missing(found)


CHECKS = (
    Check("free-memory", "memory", "guests' RAM", _free, required=True),
    Check("memfd", "memory", "guests' RAM, and everything that crosses an update", _memfd, required=True),
    Check("huge-pages", "memory", "-object memory-backend-memfd,hugetlb=on", _huge),
    Check("transparent-huge-pages", "memory", "guests' RAM in huge pages without reserving any", _transparent),
    Check("locked-memory", "memory", f"devices of the host in guests; {LATER}", _locked),
    Check("userfaultfd", "memory", f"memory that comes when it is touched; {LATER}", _faults),
)  # fmt: skip
