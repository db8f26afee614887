"""What will be executed: found as execvp finds it, opened once, checked before anything is stopped.

The open descriptor is what is checked and what is executed, so that nobody can swap the file in between.
"""

from __future__ import annotations

import errno
import fcntl
import os
from struct import Struct

from instar.cpr.errors import TargetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_DEFAULT_PATH: Final = "/bin:/usr/bin"  # as execvp's when PATH is unset
_REGULAR: Final = 0o100000  # S_IFREG
_TYPE_MASK: Final = 0o170000  # S_IFMT
_NOEXEC: Final = 8  # ST_NOEXEC
# A script is known to its interpreter as /dev/fd/N for good, also in tracebacks that are printed long after N
# was closed: a number that is not soon used again. 0 to 2 would be taken for standard streams.
HIGH: Final = 200
_FIRST_FREE: Final = 3
_HEAD: Final = 256  # BINPRM_BUF_SIZE: what the kernel looks at
_ELF64: Final = Struct("<16xHHIQQQIHHHHHH")
_SEGMENT: Final = Struct("<IIQQQQQQ")
_PT_INTERP: Final = 3
_MAX_SEGMENTS: Final = 128
_PATH_MAX: Final = 4096
_MACHINE: Final = slice(18, 20)  # e_machine
_MACHINES: Final = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}
_COMPATIBLE: Final = (
    ("x86_64", "i386"),
    ("aarch64", "arm"),
)  # whether the kernel does, a child finds out
_BINFMT: Final = "/proc/sys/fs/binfmt_misc"
_SET_ID: Final = 0o6000  # S_ISUID, S_ISGID


class Target:
    """A program that this process may execute; make one with :meth:`open`.

    ``program`` is the name as given, ``path`` where it was found, ``fd`` the open file, ``script`` whether
    it begins with ``#!``.
    """

    __slots__ = ("fd", "path", "program", "script")

    def __init__(self, program: str, path: str, fd: int) -> None:
        self.program = program
        self.path = path
        self.fd = fd
        self.script = False

    @classmethod
    def open(cls, program: str, *, search: str | None = None) -> Target:
        """Find and open ``program`` and check that it can be executed.

        Args:
            program: A path if it has a slash, otherwise a name to look up.
            search: Folders to look in, joined by colons (default: the environment's PATH).

        Raises:
            TargetError: ``execvp <program> failed: <reason>``; nothing stays open.
        """
        refusal = errno.ENOENT
        for path in _candidates(program, search):
            try:
                fd = _open(path)
            except OSError as exc:
                if exc.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                    raise _refused(program, exc.errno or errno.EIO) from exc
                refusal = errno.EACCES if exc.errno == errno.EACCES else refusal
                continue
            except ValueError:  # a NUL character
                break
            target = cls(program, os.path.abspath(path), fd)
            try:
                target.check()
            except TargetError:
                target.close()
                raise
            return target
        raise _refused(program, refusal) from OSError(refusal, os.strerror(refusal))

    def check(self) -> None:
        """Check the open file again; cheap, for just before the stop.

        Raises:
            TargetError: It cannot be executed any more; the text is what ``exec`` would say.
        """
        found = os.fstat(self.fd)
        if found.st_mode & _TYPE_MASK != _REGULAR:
            raise _refused(self.program, errno.EACCES, "it is not a regular file")
        if not _executable(self.fd, self.path):
            raise _refused(
                self.program, errno.EACCES, "it has no execute permission for this user"
            )
        if os.fstatvfs(self.fd).f_flag & _NOEXEC:
            raise _refused(self.program, errno.EACCES, "its file system is mounted noexec")
        head = os.pread(self.fd, _HEAD, 0)
        self.script = head.startswith(b"#!")
        if self.script:
            self._check_script(head)
        elif head.startswith(b"\x7fELF"):
            self._check_machine(head)
            self._check_loader(head)
        else:
            raise _refused(self.program, errno.ENOEXEC, "neither an ELF program nor a #! script")

    def lost_privileges(self) -> str:
        """Return a sentence if the file would give privileges that it cannot give here, otherwise ""."""
        mode = os.fstat(self.fd).st_mode
        try:
            grants = bool(os.getxattr(self.fd, "security.capability"))
        except OSError:  # none, or a file system without them
            grants = False
        if not (mode & _SET_ID or grants) or not _no_new_privileges():
            return ""
        return (
            f"{self.program} is set-user-ID, set-group-ID or has capabilities, "
            "which no_new_privs takes from it: it will run with the privileges of this program"
        )

    def close(self) -> None:
        """Close the file; again is fine."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def _check_script(self, head: bytes) -> None:
        line = head[2:].split(b"\n", 1)[0].split()
        self._check_interpreter(os.fsdecode(line[0]) if line else "")
        if not os.path.exists(f"/dev/fd/{self.fd}"):
            why = "scripts are executed through /dev/fd, which does not exist here"
            raise _refused(self.program, errno.ENOENT, why)

    def _check_machine(self, head: bytes) -> None:
        with open("/proc/self/exe", "rb") as file:
            own = file.read(_MACHINE.stop)
        if head[_MACHINE] == own[_MACHINE] or _someone_takes(head):
            return
        other, mine = (_machine_name(part) for part in (head, own))
        if (mine, other) not in _COMPATIBLE:
            why = f"it is a program for {other}, this host executes {mine} and no binfmt_misc entry takes it"
            raise _refused(self.program, errno.ENOEXEC, why)

    def _check_loader(self, head: bytes) -> None:
        # Only programs of the usual kind name their loader where we look; exec judges the others.
        if len(head) < _ELF64.size or head[4:6] != b"\x02\x01":
            return
        table, size, count = (_ELF64.unpack_from(head)[n] for n in (4, 8, 9))
        if size != _SEGMENT.size or count > _MAX_SEGMENTS or table > 1 << 40:
            return
        rows = os.pread(self.fd, size * count, table)
        for kind, _, offset, _, _, length, _, _ in _SEGMENT.iter_unpack(
            rows[: len(rows) // size * size]
        ):
            if kind == _PT_INTERP and length <= _PATH_MAX and offset < 1 << 40:
                self._check_interpreter(
                    os.fsdecode(os.pread(self.fd, length, offset).rstrip(b"\0"))
                )

    def _check_interpreter(self, path: str) -> None:
        if not os.path.isfile(path):
            raise _refused(self.program, errno.ENOENT, f"its interpreter {path!r} does not exist")
        if not os.access(path, os.X_OK, effective_ids=True):
            why = f"its interpreter {path!r} has no execute permission for this user"
            raise _refused(self.program, errno.EACCES, why)


def _machine_name(head: bytes) -> str:
    number = int.from_bytes(head[_MACHINE], "big" if head[5:6] == b"\x02" else "little")
    return _MACHINES.get(number, f"machine {number}")


def _someone_takes(head: bytes) -> bool:
    """Return whether an interpreter is registered for files that begin like this (qemu-user, for one)."""
    try:
        names = set(os.listdir(_BINFMT)) - {"register", "status"}
    except OSError:
        return False
    return any(_takes(os.path.join(_BINFMT, name), head) for name in names)


def _takes(path: str, head: bytes) -> bool:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return False
    rows = {name: value for name, _, value in (line.partition(" ") for line in lines)}
    if "enabled" not in rows or "magic" not in rows:
        return False
    try:
        at = int(rows.get("offset", "0"))
        magic = bytes.fromhex(rows["magic"])
        mask = bytes.fromhex(rows.get("mask", "ff" * len(magic)))
    except ValueError:
        return False
    triples = zip(head[at : at + len(magic)], magic, mask, strict=False)
    return len(head) >= at + len(magic) and all((a ^ b) & c == 0 for a, b, c in triples)


def _no_new_privileges() -> bool:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return "\nNoNewPrivs:\t1\n" in file.read()
    except OSError:
        return False


def _candidates(program: str, search: str | None) -> list[str]:
    if not program or "/" in program:
        return [program] if program else []
    folders = os.environ.get("PATH", _DEFAULT_PATH) if search is None else search
    return [os.path.join(folder or ".", program) for folder in folders.split(":")]


def _open(path: str) -> int:
    # O_NONBLOCK: opening a FIFO must not wait for its writer.
    return _raised(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))


def _raised(fd: int) -> int:
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH)
    except OSError:  # EINVAL: above RLIMIT_NOFILE
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    finally:
        os.close(fd)


def _executable(fd: int, path: str) -> bool:
    # There is no access() by descriptor; without /proc the path must do.
    here = f"/proc/self/fd/{fd}"
    return os.access(here if os.path.exists(here) else path, os.X_OK, effective_ids=True)


def _refused(program: str, number: int, why: str = "") -> TargetError:
    error = TargetError(f"execvp {program} failed: {os.strerror(number)}")
    if why:
        error.add_note(f"hint: {why}")
    return error
