"""What a program may do that only tries itself beside a running guest: look, and tell.

Source: own; docs/decisions/0008.
"""

from __future__ import annotations

from sys import byteorder

from instar.sandbox.seccomp import (
    ENOSYS,
    NOTHING,
    Condition,
    Rule,
    compile_filter,
    descriptor,
    descriptors,
    install,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

_LEFT_OUT: Final = (
    "{} descriptors that others use are scattered so that no seccomp filter is long enough for them: a program {} them "
    "during its rehearsal"
)
_STDERR: Final = 2
_WORD: Final = 0xFFFF_FFFF
_NETWORK: Final = (
    "bind", "connect", "listen", "accept", "accept4", "sendto", "sendmsg", "sendmmsg", "recvfrom", "recvmsg",
    "recvmmsg", "shutdown", "setsockopt",
)  # fmt: skip
_FILES: Final = (
    "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "mkdir",
    "mkdirat", "rmdir", "mknod", "mknodat", "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown",
    "fchownat", "truncate", "ftruncate", "fallocate", "utime", "utimes", "futimesat", "utimensat", "setxattr",
    "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr", "creat", "flock", "copy_file_range",
    "sendfile", "splice", "tee", "vmsplice", "io_submit", "name_to_handle_at", "open_by_handle_at",
)  # fmt: skip
_SYSTEM: Final = (
    "ptrace", "process_vm_writev", "process_madvise", "pidfd_getfd", "mount", "umount2", "move_mount", "fsopen",
    "open_tree", "mount_setattr", "pivot_root", "chroot", "setns", "unshare", "reboot", "sethostname", "setdomainname",
    "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "bpf", "perf_event_open", "keyctl",
    "add_key", "request_key", "swapon", "swapoff", "acct", "quotactl", "settimeofday", "clock_settime",
    "clock_adjtime", "syslog", "vhangup",
)  # fmt: skip
_SIGNALS: Final = ("kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal")
_HARM: Final = (*_NETWORK, *_FILES, *_SYSTEM, *_SIGNALS)
_PROCESSES: Final = ("execve", "execveat", "fork", "vfork")
_UNSEEN: Final = ("clone3", "openat2", "io_uring_setup", "io_uring_enter", "io_uring_register")
_READS: Final = ("read", "readv", "pread64", "preadv", "preadv2")
_WRITES: Final = ("write", "writev", "pwrite64", "pwritev", "pwritev2")
_CLONE_THREAD: Final = 0x10000
_ACCESS: Final = 0o3  # O_ACCMODE
_MAKES: Final = (
    0o100,
    0o1000,
    0o20000000,
)  # O_CREAT, O_TRUNC, and what __O_TMPFILE adds to O_DIRECTORY
_PROT_WRITE: Final = 2
_MAP_SHARED_OR_ANONYMOUS: Final = 0x21
_MAP_SHARED: Final = 0x01
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_GETLK, F_OFD_GETLK, F_DUPFD_CLOEXEC, F_GETPIPE_SZ, F_GET_SEALS
_QUESTIONS_FCNTL: Final = (0, 1, 2, 3, 5, 36, 1030, 1032, 1034)
_F_SETFL: Final = 4
# F_SETLK, F_SETLKW, F_SETOWN, F_SETSIG, F_OFD_SETLK, F_OFD_SETLKW, F_SETLEASE, F_NOTIFY, F_SETPIPE_SZ, F_ADD_SEALS
_CHANGES_FCNTL: Final = (6, 7, 8, 10, 37, 38, 1024, 1026, 1031, 1033)
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO (all of ours are so already), FIONCLEX, FIOCLEX, TIOCGPTN, TUNGETIFF,
# BLKGETSIZE64
_QUESTIONS_IOCTL: Final = (
    0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x8004_5430, 0x8004_54D2, 0x8008_1272,
)  # fmt: skip

_KVM: Final = 0xAE00  # the type of KVM's requests: they change a VM of the same process only
_IOCTL_TYPE: Final = 0xFF00


def rules(writable: Iterable[int], shared: Iterable[int]) -> list[Rule]:
    """Return the rules for a program that knows that it rehearses.

    Args:
        writable: The descriptors that may be written to, beside standard error.
        shared: Those that others read from, too: not to be read. They stay open, lest another get the number.
    """
    out = sorted({_STDERR, *writable})
    found = [Rule(_WRITES, [descriptor(0, fd)], error=0) for fd in out]
    found += [Rule(_WRITES)]
    for some in descriptors(0, shared):
        found += [Rule(_READS, [some]), Rule(["close"], [some], error=NOTHING)]
    found += [Rule((*_HARM, *_PROCESSES)), Rule(_UNSEEN, error=ENOSYS)]
    found += [Rule(["clone"], [Condition(0, 0, mask=_CLONE_THREAD)]), *_no_opening()]
    found += [Rule(["fcntl"], [Condition(1, n, mask=_WORD)], error=0) for n in _QUESTIONS_FCNTL]
    return [*found, Rule(["fcntl"]), *_questions_only()]


def rules_for_anybody(shared: Iterable[int], *, opens: bool) -> list[Rule]:
    """Return the rules for a program of which nothing is known yet: it may start others, which have them, too.

    Args:
        shared: Descriptors that others use, too: neither to be read nor written; they stay open.
        opens: Whether it may open files for writing, because something else forbids that.
    """
    found: list[Rule] = []
    for some in descriptors(0, shared):
        found += [Rule((*_READS, *_WRITES), [some]), Rule(["close"], [some], error=NOTHING)]
        found.append(Rule(["fcntl"], [some, Condition(1, _F_SETFL, mask=_WORD)]))
    found += [Rule(_HARM), Rule(_UNSEEN, error=ENOSYS)]
    found += [] if opens else _no_opening()
    found += [Rule(["fcntl"], [Condition(1, number, mask=_WORD)]) for number in _CHANGES_FCNTL]
    return [*found, *_questions_only()]


def filters_for_anybody(shared: Iterable[int], machine: str) -> tuple[bytes, list[str]]:
    """Return what ``launch.py`` takes; without numbers for ``machine`` that is no filter.

    Of descriptors scattered so that no filter is long enough for them, none is named.

    Returns:
        The filters, and what people should know: a sentence if descriptors are left out.
    """
    found = b""
    numbers = list(shared)
    notes: list[str] = []
    for opens in (False, True):
        try:
            program = compile_filter(rules_for_anybody(numbers, opens=opens), machine)
        except LookupError:
            program = b""
        except ValueError:
            program = compile_filter(rules_for_anybody((), opens=opens), machine)
            notes = [_LEFT_OUT.format(len(numbers), "that knows nothing of rehearsals could use")]
        found += len(program).to_bytes(4, byteorder) + program
    return found, notes


def _no_opening() -> list[Rule]:
    """Refuse to open anything for writing, and to map a file so that it can be written."""
    found: list[Rule] = []
    for name, index in (("open", 1), ("openat", 2)):
        found += [Rule([name], [Condition(index, access, mask=_ACCESS)]) for access in (1, 2, 3)]
        found += [Rule([name], [Condition(index, bit, mask=bit)]) for bit in _MAKES]
    shared_write = [
        Condition(2, _PROT_WRITE, mask=_PROT_WRITE),
        Condition(3, _MAP_SHARED, mask=_MAP_SHARED_OR_ANONYMOUS),
    ]
    return [*found, Rule(["mmap"], shared_write)]


def _questions_only() -> list[Rule]:
    asked = [Rule(["ioctl"], [Condition(1, n, mask=_WORD)], error=0) for n in _QUESTIONS_IOCTL]
    kvm = Rule(["ioctl"], [Condition(1, _KVM, mask=_IOCTL_TYPE)], error=0)
    return [*asked, kvm, Rule(["ioctl"])]


def protect(shared: Iterable[int], *, writable: Iterable[int]) -> list[str]:
    """Put this process under :func:`rules`, for ever.

    Returns:
        What people should know: why there is no protection, or not all of it.
    """
    numbers, written = list(shared), list(writable)
    try:
        try:
            install(rules(written, numbers))
        except ValueError:
            install(rules(written, ()))
            return [_LEFT_OUT.format(len(numbers), "could read from")]
    except (OSError, LookupError) as e:
        why = e.strerror if isinstance(e, OSError) else e
        return [f"no seccomp filter guarded the rehearsal: {why}"]
    return []
