"""Checks of networks, limits, room for files, and other people's programs. Pure."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from instar.cli.doctor.facts import UNLIMITED
from instar.cli.doctor.findings import LATER, Check, Verdict, limited, missing, ok
from instar.cli.doctor.memory import size

if TYPE_CHECKING:
    from collections.abc import Callable

    from instar.cli.doctor.facts import Facts

FILES_LEAST, FILES_GOOD = 128, 1024
PROCESSES_LEAST, PROCESSES_GOOD = 16, 64
ROOM_GOOD = {"shared": 512 << 20, "temporary": 256 << 20, "images": 1 << 30}  # bytes
PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-system-riscv64": "qemu-system-misc",
    "passt": "passt",
    "virtiofsd": "virtiofsd (Debian 12: qemu-system-common)",
    "qemu-storage-daemon": "qemu-system-common",
}


def _device(path: str, module: str) -> Callable[[Facts], Verdict]:
    """Return the judge of a device whose module may not be loaded."""

    def judge(facts: Facts) -> Verdict:
        number = facts.devices.get(path, errno.ENOENT)
        if not number:
            return ok(f"{path} can be opened")
        found = f"{path}: {os.strerror(number).lower()}"
        if facts.container:
            return missing(found, f"start the container with --device {path}")
        if number in (errno.EACCES, errno.EPERM):
            return missing(found, f"setfacl -m u:{facts.user}:rw {path}")
        return missing(found, f"modprobe {module}")

    return judge


def _net_admin(facts: Facts) -> Verdict:
    if facts.net_admin:
        return ok("interfaces can be made")
    return missing(
        "this user may not make interfaces",
        f"ip tuntap add dev tap0 mode tap user {facts.user}, as root; or passt, which needs no right",
    )


def _files(facts: Facts) -> Verdict:
    soft, hard = facts.open_files
    if soft == UNLIMITED or soft >= FILES_GOOD:
        return ok("no limit" if soft == UNLIMITED else f"{soft} at a time")
    more = FILES_GOOD if hard == UNLIMITED else min(hard, FILES_GOOD)
    mend = f"ulimit -n {more}" if more > soft else f"ulimit -n {FILES_GOOD}, as root"
    state = limited if soft >= FILES_LEAST else missing
    return state(f"{soft} at a time, {FILES_GOOD} are enough for any machine", mend)


def _group_memory(facts: Facts) -> Verdict:
    left = facts.cgroup.memory
    if left == UNLIMITED:
        return ok("no limit")
    if left >= facts.memory:
        return ok(f"{size(left)} are left, more than the host has")
    return limited(f"{size(left)} are left", _property(facts, "MemoryMax=infinity"))


def _group_processes(facts: Facts) -> Verdict:
    left = facts.cgroup.processes
    if left == UNLIMITED or left >= PROCESSES_GOOD:
        return ok("no limit" if left == UNLIMITED else f"{left} more are allowed")
    state = limited if left >= PROCESSES_LEAST else missing
    return state(f"{left} more are allowed", _property(facts, "TasksMax=infinity"))


def _group_cpus(facts: Facts) -> Verdict:
    share = facts.cgroup.cpus
    if share == UNLIMITED or share >= facts.processors:
        return ok("no limit that binds")
    return limited(
        f"the time of {share:.2f} of {facts.processors} processors",
        _property(facts, "CPUQuota="),
    )


def _property(facts: Facts, setting: str) -> str:
    """Return the command that changes a limit of systemd's group, or who else has set it."""
    unit = next((part for part in reversed(facts.cgroup.name.split("/")) if "." in part), "")
    if facts.container or not unit.endswith((".service", ".scope", ".slice")):
        return "who started this container or made this control group has set it"
    return f"systemctl set-property {unit} {setting}"


def _room(purpose: str) -> Callable[[Facts], Verdict]:
    """Return the judge of free room at the place for ``purpose``."""

    def judge(facts: Facts) -> Verdict:
        path, free = facts.room.get(purpose, ("", UNLIMITED))
        if free == UNLIMITED:
            return missing(f"{path or 'the place'} does not exist")
        found = f"{size(free)} free in {path}"
        if free >= ROOM_GOOD[purpose]:
            return ok(found)
        mend = f"mount -o remount,size=50% {path}" if purpose == "shared" else ""
        return limited(f"{found}, {size(ROOM_GOOD[purpose])} is a good measure", mend)

    return judge


def _program(name: str) -> Callable[[Facts], Verdict]:
    """Return the judge of a program."""

    def judge(facts: Facts) -> Verdict:
        path = facts.programs.get(name, "")
        return ok(path) if path else missing("not here", f"apt-get install {PACKAGES[name]}")

    return judge


VHOST_NET, VHOST_VSOCK = "/dev/vhost-net", "/dev/vhost-vsock"
CHECKS = (
    Check("tun", "network", "-netdev tap", _device("/dev/net/tun", "tun")),
    Check("net-admin", "network", "-netdev tap that makes its interface itself", _net_admin),
    Check("vhost-net", "network", f"tap networks served by the kernel; {LATER}", _device(VHOST_NET, "vhost_net")),
    Check("vhost-vsock", "network", f"vsock served by the kernel; {LATER}", _device(VHOST_VSOCK, "vhost_vsock")),
    Check("open-files", "limits", "descriptors of disks, networks, consoles, monitors", _files, required=True),
    Check("cgroup-memory", "limits", "guests' RAM", _group_memory),
    Check("cgroup-processes", "limits", "threads, -child, the helpers of an update", _group_processes, required=True),
    Check("cgroup-cpus", "limits", "vCPUs that run at the same time", _group_cpus),
    Check("shared-room", "space", "-object memory-backend-file in /dev/shm", _room("shared")),
    Check("temporary-room", "space", "state files, sockets, tests", _room("temporary")),
    Check("image-room", "space", "instar image pull", _room("images")),
    Check("passt", "peers", "networks of guests without any right", _program("passt")),
    Check("virtiofsd", "peers", "-device vhost-user-fs-device", _program("virtiofsd")),
    Check("qemu-storage-daemon", "peers", "qcow2 and NBD disks", _program("qemu-storage-daemon")),
    Check("qemu-x86", "peers", "make test-kvm where there is no KVM, comparing", _program("qemu-system-x86_64")),
    Check("qemu-riscv", "peers", "comparing", _program("qemu-system-riscv64")),
)  # fmt: skip
