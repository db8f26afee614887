"""Finding out the facts of this host; nothing is judged, nothing stays changed.

Source: own; proc(5), sysfs as in Linux Documentation/ABI.
"""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import pwd
import re
import resource
import shutil
import sys
import tempfile
from typing import TYPE_CHECKING

from instar.cli.doctor import groups, kvm
from instar.cli.doctor.facts import UNLIMITED, Facts
from instar.image.store import default_root
from instar.sandbox import landlock
from instar.sandbox.numbers import NUMBERS

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS = (
    "instar.cpr._descriptors",
    "instar.cpr._keeper",
    "instar.cpu.kvm._run",
    "instar.cpu.rv64._core",
    "instar.virtio.queue",
)
DEVICES = (kvm.DEVICE, "/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock")
PROGRAMS = (
    "passt", "virtiofsd", "qemu-storage-daemon", "qemu-system-x86_64", "qemu-system-riscv64",
)  # fmt: skip
BESIDE_PATH = ("/usr/libexec", "/usr/lib/qemu")  # where Debian puts virtiofsd
CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
HUGE = "/sys/kernel/mm/hugepages"
NET_ADMIN = 12  # the number of the capability
NEW_USER = 0x1000_0000  # CLONE_NEWUSER


def read_facts() -> Facts:
    """Return what is known of this host."""
    uname = os.uname()
    status = text("/proc/self/status")
    group = groups.place(text("/proc/self/mountinfo"), text("/proc/self/cgroup"))
    return Facts(
        system=uname.sysname,
        release=uname.release,
        machine=uname.machine,
        python=sys.version_info[:3],
        unbuilt=tuple(name for name in PARTS if importlib.util.find_spec(name) is None),
        user=_user(),
        container=any(os.path.exists(path) for path in CONTAINER_MARKS),
        processors=len(os.sched_getaffinity(0)),
        flags=kvm.processor_flags(),
        modules=frozenset(name for name in _names("/sys/module") if name.startswith("kvm")),
        clocksource=text(
            "/sys/devices/system/clocksource/clocksource0/current_clocksource"
        ).strip(),
        devices={path: _opened(path) for path in DEVICES},
        kvm=kvm.look(),
        net_admin=bool(int(_row(status, "CapEff") or "0", 16) >> NET_ADMIN & 1),
        memfd=_memfd(),
        memory=int((_row(text("/proc/meminfo"), "MemAvailable") or "0").split()[0]) << 10,
        huge_pages=_huge_pages(),
        shmem_huge=chosen(text("/sys/kernel/mm/transparent_hugepage/shmem_enabled")),
        landlock=landlock.abi(),
        seccomp=bool(_row(status, "Seccomp")),
        user_namespaces=_in_child(lambda: _libc().unshare(NEW_USER)),
        userfaultfd=_in_child(_userfaultfd),
        open_files=_limit(resource.RLIMIT_NOFILE),
        locked_memory=_limit(resource.RLIMIT_MEMLOCK),
        cgroup=groups.limits(group, text),
        room={
            "shared": _room("/dev/shm"),  # noqa: S108 - looked at, not written to
            "temporary": _room(tempfile.gettempdir()),
            "images": _room(default_root(), parents=True),
        },
        programs={name: _program(name) for name in PROGRAMS},
    )


def text(path: str) -> str:
    """Return a small file's contents, empty if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def chosen(line: str) -> str:
    """Return the word in brackets of a setting such as ``always [madvise] never``."""
    found = re.search(r"\[([a-z_]+)\]", line)
    return found[1] if found else ""


def _row(table: str, name: str) -> str:
    found = re.search(rf"^{name}:[ \t]*(.*)$", table, re.MULTILINE)
    return found[1] if found else ""


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a number without a name, as containers have
        return str(os.geteuid())


def _opened(path: str) -> int:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as exc:
        return exc.errno or errno.EIO
    return 0


def _memfd() -> int:
    try:
        os.close(os.memfd_create("instar-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    except OSError as exc:
        return exc.errno or errno.EIO
    return 0


def _huge_pages() -> dict[int, tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    for name in _names(HUGE):
        size = re.fullmatch(r"hugepages-(\d+)kB", name)
        counts = [text(f"{HUGE}/{name}/{file}_hugepages").strip() for file in ("nr", "free")]
        if size and all(count.isdecimal() for count in counts):
            found[int(size[1]) << 10] = (int(counts[0]), int(counts[1]))
    return dict(sorted(found.items()))


def _limit(kind: int) -> tuple[int, int]:
    soft, hard = (
        UNLIMITED if limit == resource.RLIM_INFINITY else limit
        for limit in resource.getrlimit(kind)
    )
    return soft, hard


def _room(path: str, *, parents: bool = False) -> tuple[str, int]:
    """Return a path and what is free there; with ``parents`` the first one above it that exists counts."""
    place = path
    while parents and not os.path.exists(place):
        place = os.path.dirname(place)
    try:
        stat = os.statvfs(place)
    except OSError:
        return path, UNLIMITED
    return path, stat.f_bavail * stat.f_frsize


def _program(name: str) -> str:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *BESIDE_PATH])
    return shutil.which(name, path=path) or ""


# --- what can only be known by trying --------------------------------------------------------------------------------


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _userfaultfd() -> int:
    number = NUMBERS["userfaultfd"][0 if os.uname().machine == "x86_64" else 1]
    return int(_libc().syscall(ctypes.c_long(number), ctypes.c_long(os.O_CLOEXEC)))


def _in_child(attempt: Callable[[], int]) -> int:
    """Return the errno of an attempt that a child makes, so that it changes nothing here."""
    child = os.fork()
    if not child:
        try:
            os._exit(ctypes.get_errno() if attempt() < 0 else 0)
        finally:
            os._exit(errno.EIO)
    _, status = os.waitpid(child, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else errno.EPERM
