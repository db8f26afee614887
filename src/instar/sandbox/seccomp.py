"""Rules about system calls, made into a filter, and the filter given to the kernel.

Rules are asked in order; the first that matches decides, and what none matches is allowed. System calls of another
architecture than the program's are always refused.

Source: Linux Documentation/userspace-api/seccomp_filter.rst, include/uapi/linux/seccomp.h and audit.h; own.
"""

from __future__ import annotations

import os
import sys
from struct import Struct

from instar.sandbox.bpf import Assembler
from instar.sandbox.numbers import NUMBERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Final

ALLOW: Final = 0x7FFF_0000  # SECCOMP_RET_ALLOW
_ERRNO: Final = 0x0005_0000  # SECCOMP_RET_ERRNO, the number in the lower half
EPERM: Final = 1
ENOSYS: Final = 38
NOTHING: Final = -1
_ARCHITECTURES: Final = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}  # AUDIT_ARCH_*
_X32: Final = 0x4000_0000  # calls of the x32 ABI have the same architecture and this bit
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_WORD: Final = 0xFFFF_FFFF
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_SET_MODE_FILTER: Final = 1
_PROGRAM: Final = Struct("@HP")  # struct sock_fprog: instructions, where they are
_TSYNC: Final = 1  # SECCOMP_FILTER_FLAG_TSYNC: all threads of the process


class Condition:
    """A condition on one argument of a call.

    Args:
        index: Which argument, 0 to 5.
        value: What it has to be.
        mask: The bits that are looked at; all 64 unless told. Descriptors, flags and commands are 32 bits wide.
        differs: The condition is that it is something else.
        last: The condition is that its lower 32 bits are one of ``value`` to this, at most 2**31.
    """

    __slots__ = ("differs", "index", "last", "mask", "value")

    def __init__(
        self,
        index: int,
        value: int,
        *,
        mask: int = (1 << 64) - 1,
        differs: bool = False,
        last: int = -1,
    ) -> None:
        self.last = last
        self.index = index
        self.value = value
        self.mask = mask
        self.differs = differs


class Rule:
    """What happens to calls of these names if all tests hold.

    Args:
        names: As in the manual, section 2; a name that the architecture does not have matches nothing.
        error: What the call fails with; 0: it is allowed; NOTHING: it does nothing, and returns 0.
        tests: Conditions; none: always. One with ``differs`` and more than 32 bits in its mask is impossible.
    """

    __slots__ = ("error", "names", "tests")

    def __init__(
        self, names: Iterable[str], tests: Sequence[Condition] = (), error: int = EPERM
    ) -> None:
        self.names = tuple(names)
        self.error = error
        self.tests = tests


def descriptor(index: int, fd: int) -> Condition:
    """Return the test that argument ``index`` is descriptor ``fd``."""
    return Condition(index, fd, mask=_WORD)


def descriptors(index: int, numbers: Iterable[int]) -> list[Condition]:
    """Return tests, as few as can be, of which one holds if argument ``index`` is one of these descriptors."""
    found: list[Condition] = []
    for fd in sorted(set(numbers)):
        if found and found[-1].last == fd - 1:
            found[-1].last = fd
        else:
            found.append(Condition(index, fd, last=fd))
    return found


def compile_filter(rules: Iterable[Rule], machine: str) -> bytes:
    """Return the filter as the kernel reads it.

    Args:
        rules: In order.
        machine: As ``os.uname().machine``.

    Raises:
        LookupError: The numbers of this architecture's calls are not known.
        ValueError: A name is none that is known of any architecture, or there are too many rules.
    """
    if machine not in _ARCHITECTURES:
        raise LookupError(f"no system call numbers for {machine}")
    code = Assembler()
    code.begin()
    code.load(_ARCHITECTURE)
    code.other(_ARCHITECTURES[machine])
    code.answer(_ERRNO | ENOSYS)
    code.end()
    code.load(_NUMBER)
    if machine == "x86_64":
        code.begin()
        code.mask(_X32)
        code.other(0)
        code.answer(_ERRNO | ENOSYS)
        code.end()
        code.load(_NUMBER)
    for rule in rules:
        for name in rule.names:
            number = _number(name, machine)
            if number >= 0:
                _add(code, number, rule)
    code.answer(ALLOW)
    return code.program()


def _add(code: Assembler, number: int, rule: Rule) -> None:
    code.begin()
    code.equal(number)
    for test in rule.tests:
        _compare(code, test)
    code.answer(_answer(rule.error))
    code.end()
    if rule.tests:
        code.load(_NUMBER)


def _answer(error: int) -> int:
    if error == NOTHING:
        return _ERRNO
    return _ERRNO | error if error else ALLOW


def _compare(code: Assembler, test: Condition) -> None:
    if test.last >= 0:
        code.load(_ARGUMENTS + 8 * test.index)
        code.within(test.value, test.last)
        return
    halves = [
        (
            _ARGUMENTS + 8 * test.index + 4 * half,
            test.mask >> 32 * half & _WORD,
            test.value >> 32 * half & _WORD,
        )
        for half in (0, 1)
        if test.mask >> 32 * half & _WORD
    ]
    if test.differs and len(halves) > 1:
        raise ValueError("a test for another value has 32 bits at most")
    for offset, mask, value in halves:
        code.load(offset)  # both architectures are little-endian
        if mask != _WORD:
            code.mask(mask)
        (code.other if test.differs else code.equal)(value)


def _number(name: str, machine: str) -> int:
    """Return the number of a call, -1 if this architecture does without it."""
    try:
        return NUMBERS[name][0 if machine == "x86_64" else 1]
    except KeyError:
        raise ValueError(f"system call {name}: its number is not known") from None


def install(rules: Iterable[Rule], *, all_threads: bool = False) -> None:
    """Put this process, and what it starts and becomes, under ``rules`` for ever.

    Args:
        rules: In order.
        all_threads: Also the threads that run already.

    Raises:
        OSError: The kernel has no seccomp, or does not let this process; nothing changed, or only that the process
            cannot get privileges by an ``exec`` any more.
        LookupError: The architecture's calls are not known; nothing changed.
    """
    import ctypes  # noqa: PLC0415 - nobody resumes into this

    machine = os.uname().machine if sys.maxsize > _WORD else "32 bit"
    data = compile_filter(rules, machine)

    buffer = ctypes.create_string_buffer(data, len(data))
    program = _PROGRAM.pack(len(data) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_long(_number("seccomp", machine))
    flags = ctypes.c_ulong(_TSYNC if all_threads else 0)
    mode = ctypes.c_ulong(_SECCOMP_SET_MODE_FILTER)
    zero = ctypes.c_ulong(0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) < 0 or libc.syscall(
        number, mode, flags, program
    ):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
