"""Rules about files, given to the kernel: Landlock.

A layer of rules takes rights away for ever, from the calling thread and all that it starts; there can be 16 layers.

Source: Linux Documentation/userspace-api/landlock.rst, include/uapi/linux/landlock.h; own.
"""

from __future__ import annotations

import errno
import os
from struct import Struct

from instar.sandbox.numbers import NUMBERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from collections.abc import Iterable
    from typing import Final

EXECUTE: Final = 1 << 0
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
REMOVE_DIR: Final = 1 << 4
REMOVE_FILE: Final = 1 << 5
MAKE_DIR: Final = 1 << 7
MAKE_REG: Final = 1 << 8
MAKE_SOCK: Final = 1 << 9
MAKE_FIFO: Final = 1 << 10
REFER: Final = 1 << 13
TRUNCATE: Final = 1 << 14
IOCTL_DEV: Final = 1 << 15

READ: Final = READ_FILE | READ_DIR
WRITE: Final = (
    READ | WRITE_FILE | TRUNCATE | IOCTL_DEV
    | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO | REFER
)  # fmt: skip
_OF_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_HANDLED: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
SCOPE_SIGNAL: Final = 1 << 1  # since ABI 6: signals reach no process outside
_SCOPES: Final = 6
_RULESET: Final = Struct("=QQQ")  # handled: files, network; scoped
_SIZES: Final = {1: 8, 2: 8, 3: 8, 4: 16, 5: 16}  # bytes of it that the ABI knows; later: all
_BENEATH: Final = Struct("=Qi")
_PATH_BENEATH: Final = 1
_VERSION: Final = 1


class Layer:
    """One layer of rules in the making.

    Args:
        scope_signals: Signals shall reach no process outside, where the kernel knows that (Linux 6.12).

    Raises:
        OSError: The kernel has no Landlock, or it is off; nothing changed.
    """

    def __init__(self, *, scope_signals: bool = False) -> None:
        self.abi = abi()
        self._rules: dict[str, int] = {}
        self._scoped = SCOPE_SIGNAL if scope_signals and self.abi >= _SCOPES else 0
        if self.abi < 1:
            raise OSError(errno.EOPNOTSUPP, "the kernel has no Landlock, or it is off")

    @property
    def handled(self) -> int:
        """All rights that this kernel can take away."""
        return max(bits for number, bits in _HANDLED.items() if number <= self.abi)

    def allow(self, paths: Iterable[str], rights: int) -> None:
        """Leave these rights at and beneath these paths; those that do not exist are nothing."""
        for path in paths:
            self._rules[path] = self._rules.get(path, 0) | rights

    def enforce(self) -> None:
        """Put the calling thread under the rules. ``no_new_privs`` must be on.

        Raises:
            OSError: The kernel refused; nothing changed.
        """
        import ctypes  # noqa: PLC0415 - nobody resumes into this

        attributes = _RULESET.pack(self.handled, 0, self._scoped)[: _SIZES.get(self.abi, 24)]
        ruleset = _call("landlock_create_ruleset", ctypes.c_char_p(attributes), len(attributes), 0)
        try:
            for path, rights in self._rules.items():
                self._add(ruleset, path, rights)
            _call("landlock_restrict_self", ruleset, 0)
        finally:
            os.close(ruleset)

    def _add(self, ruleset: int, path: str, rights: int) -> None:
        import ctypes  # noqa: PLC0415 - nobody resumes into this

        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:  # it does not exist, and cannot be made where nothing may be
            return
        try:
            is_folder = os.fstat(fd).st_mode & 0o170000 == 0o040000
            allowed = rights & self.handled & (-1 if is_folder else _OF_FILES)
            rule = ctypes.c_char_p(_BENEATH.pack(allowed, fd))
            _call("landlock_add_rule", ruleset, _PATH_BENEATH, rule, 0)
        finally:
            os.close(fd)


def abi() -> int:
    """Return the version of Landlock that the kernel has; 0 if none, or it is off."""
    try:
        return _call("landlock_create_ruleset", None, 0, _VERSION)
    except OSError:
        return 0


def _call(name: str, *words: int | ctypes.c_char_p | None) -> int:
    import ctypes  # noqa: PLC0415 - nobody resumes into this

    libc = ctypes.CDLL(None, use_errno=True)
    number = NUMBERS[name][0 if os.uname().machine == "x86_64" else 1]
    values = [ctypes.c_long(word) if isinstance(word, int) else word for word in words]
    result = int(libc.syscall(ctypes.c_long(number), *values))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result
