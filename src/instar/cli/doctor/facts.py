"""What is known of a host, as plain data; :mod:`reading` finds it out, tests make it up.

Source: own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

UNLIMITED = -1


@dataclass(frozen=True, kw_only=True)
class Kvm:
    """What ``/dev/kvm`` says and does.

    Attributes:
        version: Of its interface; 0 if it was not asked.
        refusal: Why no guest can run; empty if one can.
        lacks: Capabilities that Instar asks for and this KVM does not have, by the kernel's names.
        nested: The module's parameter ``nested`` as the kernel shows it; empty if there is none.
    """

    version: int = 0
    refusal: str = ""
    lacks: frozenset[str] = frozenset()
    nested: str = ""


@dataclass(frozen=True, kw_only=True)
class Cgroup:
    """What the control groups of this process leave it; ``UNLIMITED`` where none of them has a limit.

    Attributes:
        memory: Bytes until the tightest memory.max.
        processes: Processes and threads until the tightest pids.max.
        cpus: Processors' time by the tightest cpu.max.
        name: The innermost group, as in /proc/self/cgroup; empty where there is no version 2.
    """

    memory: int = UNLIMITED
    processes: int = UNLIMITED
    cpus: float = UNLIMITED
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a host. Sizes are bytes; an errno of 0 means that it worked.

    Attributes:
        system: As ``uname -s``.
        release: As ``uname -r``.
        machine: As ``uname -m``.
        python: Version of the Python that runs this.
        unbuilt: Modules of ours that are not compiled.
        user: Name of the user.
        container: This is a container, as far as it tells.
        processors: On which this process may run.
        flags: What the processor can do, by the kernel's names.
        modules: Kernel modules that are there, loaded or built in, as in /sys/module.
        clocksource: The kernel's.
        devices: Path to the errno of opening it for reading and writing.
        kvm: What /dev/kvm says.
        net_admin: This process may make network interfaces.
        memfd: Errno of making a memfd as Instar makes it.
        memory: That can be had without swapping.
        huge_pages: Size to how many there are and how many of these are free.
        shmem_huge: What is chosen in transparent_hugepage/shmem_enabled; empty if it is not there.
        landlock: ABI version, 0 if there is none.
        seccomp: The kernel has filters of system calls.
        user_namespaces: Errno of making one.
        userfaultfd: Errno of making one.
        open_files: Soft and hard limit of descriptors; UNLIMITED possible.
        locked_memory: Soft and hard limit; UNLIMITED possible.
        cgroup: What the control groups leave.
        room: What a place is for to its path and what is free there; UNLIMITED if it does not exist.
        programs: Name to path, empty if it is not there.
    """

    system: str
    release: str
    machine: str
    python: tuple[int, int, int]
    unbuilt: tuple[str, ...] = ()
    user: str = "root"
    container: bool = False
    processors: int = 1
    flags: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()
    clocksource: str = ""
    devices: Mapping[str, int] = field(default_factory=dict[str, int])
    kvm: Kvm = Kvm()
    net_admin: bool = False
    memfd: int = 0
    memory: int = 0
    huge_pages: Mapping[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    shmem_huge: str = ""
    landlock: int = 0
    seccomp: bool = False
    user_namespaces: int = 0
    userfaultfd: int = 0
    open_files: tuple[int, int] = (1024, 1 << 20)
    locked_memory: tuple[int, int] = (8 << 20, 8 << 20)
    cgroup: Cgroup = Cgroup()
    room: Mapping[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    programs: Mapping[str, str] = field(default_factory=dict[str, str])
