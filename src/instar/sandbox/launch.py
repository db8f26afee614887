"""Execute a program under a filter: ``launch.py FILTERS PROGRAM SCRIPT ARGUMENTS...``, both first as descriptors.

It is executed by path with nothing but the standard library, since a program must not be trusted before it has shown
what it is: one that never heard of rehearsals would truncate logs, take sockets and start children.

Of the two filters (each after its length, 32 bits) the second is for kernels with Landlock, which forbids writing files
but ``/dev/null``; the first forbids to open anything for writing. Without seccomp the program runs unguarded.

Source: Linux Documentation/userspace-api/landlock.rst and seccomp_filter.rst (numbers); own.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

BEGUN: Final = "INSTAR_CPR_BEGUN"  # when the program was executed, monotonic ns
CANNOT: Final = 126  # exit status, as of a shell
_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULESET_VERSION: Final = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH: Final = 1
_WRITE_FILE: Final = 1 << 1
_TRUNCATE: Final = 1 << 14
_CHANGES: Final = 0x1FF0  # REMOVE_DIR to MAKE_SYM
_WITH_TRUNCATE: Final = 3  # the version that knows it
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_SIGKILL: Final = 9
_MAX_FILTERS: Final = 1 << 17  # bytes

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Limit this process, then become the program."""
    filters, program, script, *argv = sys.argv[1:]
    data = os.pread(int(filters), _MAX_FILTERS, 0)
    os.close(int(filters))
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # guest memory is in it
    _be_first_to_go()
    (first,) = struct.unpack_from("=I", data)
    start = 4 + first + 4 if _forbid_writing() else 4
    (length,) = struct.unpack_from("=I", data, start - 4)
    _forbid(data[start : start + length])
    os.set_inheritable(int(program), script == "script")
    try:
        environ = {**os.environ, BEGUN: str(time.monotonic_ns())}
        os.execve(int(program), argv, environ)  # noqa: S606 - no shell
    except OSError as e:
        text = f"instar-system: error: cannot execute {argv[0]}: {e.strerror}\n"
        os.write(2, text.encode(errors="replace"))
        os._exit(CANNOT)


def _be_first_to_go() -> None:
    """Have the kernel end this process, not the guest's, when there is no memory left."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
    except OSError:  # no /proc: then it decides by size
        return


def _forbid_writing() -> bool:
    """Return whether Landlock forbids writing files now."""
    version = _call(_CREATE_RULESET, None, 0, _RULESET_VERSION)
    if version < 1:
        return False
    handled = _WRITE_FILE | _CHANGES | (_TRUNCATE if version >= _WITH_TRUNCATE else 0)
    ruleset = _call(_CREATE_RULESET, struct.pack("=Q", handled), 8, 0)
    if ruleset < 0:
        return False
    null = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC)
    allowed = _WRITE_FILE | (handled & _TRUNCATE)
    added = _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", allowed, null), 0)
    done = added == 0 and _call(_RESTRICT_SELF, ruleset, 0) == 0
    os.close(null)
    os.close(ruleset)
    return done


def _forbid(program: bytes) -> None:
    number = _SECCOMP.get(os.uname().machine, 0)
    if number and program:
        buffer = ctypes.create_string_buffer(program, len(program))
        _call(number, 1, 0, struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer)))


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    _libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero)


def _call(number: int, *arguments: object) -> int:
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return int(_libc.syscall(ctypes.c_long(number), *words))


if __name__ == "__main__":
    main()
