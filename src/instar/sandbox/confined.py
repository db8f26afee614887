"""The system calls that a virtual machine monitor and what it starts have no use for.

What is not listed is allowed: a filter is inherited by every later version of the program, and none of them may be
broken by it. Calls fail with EPERM; nobody is killed.

Source: systemd's and container engines' published lists of privileged calls, man 2; own choice.
"""

from __future__ import annotations

from instar.sandbox.seccomp import ENOSYS, Condition, Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_WORD: Final = 0xFFFF_FFFF
_NEW_NAMESPACES: Final = 0x7E02_0080  # CLONE_NEW*: namespaces of any kind
_TRACEME: Final = 0
_TIOCSTI: Final = 0x5412  # puts words into the mouth of who sits at the terminal
_TIOCLINUX: Final = 0x541C
_FAMILIES: Final = (15, 17, 38, 44)  # AF_KEY, AF_PACKET, AF_ALG, AF_XDP

_HOST: Final = (
    "acct", "clock_adjtime", "clock_settime", "delete_module", "finit_module", "init_module", "kexec_file_load",
    "kexec_load", "quotactl", "reboot", "setdomainname", "sethostname", "settimeofday", "swapoff", "swapon", "syslog",
    "vhangup", "lookup_dcookie",
)  # fmt: skip
_FILE_SYSTEMS: Final = (
    "chroot", "fsconfig", "fsmount", "fsopen", "mount", "mount_setattr", "move_mount", "name_to_handle_at",
    "open_by_handle_at", "open_tree", "pivot_root", "setns", "umount2", "unshare",
)  # fmt: skip
_OTHERS: Final = (
    "add_key", "bpf", "io_uring_enter", "io_uring_register", "io_uring_setup", "keyctl", "perf_event_open",
    "personality", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "request_key",
    "userfaultfd",
)  # fmt: skip
_PRIVILEGES: Final = (
    "capset", "setfsgid", "setfsuid", "setgid", "setgroups", "setregid", "setresgid", "setresuid", "setreuid", "setuid",
)  # fmt: skip
_RESOURCES: Final = (
    "ioprio_set", "mbind", "migrate_pages", "move_pages", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "set_mempolicy", "setpriority",
)  # fmt: skip

RULES: Final = (
    Rule((*_HOST, *_FILE_SYSTEMS, *_OTHERS, *_PRIVILEGES, *_RESOURCES)),
    Rule(("clone",), (Condition(0, 0, mask=_NEW_NAMESPACES, differs=True),)),
    Rule(
        ("clone3",), error=ENOSYS
    ),  # its flags cannot be looked at; clone is what the C library takes then
    Rule(("ptrace",), (Condition(0, _TRACEME, mask=_WORD, differs=True),)),
    Rule(("ioctl",), (Condition(1, _TIOCSTI, mask=_WORD),)),
    Rule(("ioctl",), (Condition(1, _TIOCLINUX, mask=_WORD),)),
    *(Rule(("socket",), (Condition(0, family, mask=_WORD),)) for family in _FAMILIES),
)
