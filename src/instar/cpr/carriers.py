"""How descriptors and a little news travel to the program that takes over: through ``exec``.

The table of descriptors lies in a sealed memfd, whose number is told in one environment variable of the new
program only. Close-on-exec is cleared on exactly the named descriptors, immediately before ``exec``; if
``exec`` returns, everything is as it was.
"""

from __future__ import annotations

import fcntl
import os
import sys
from struct import Struct
from time import monotonic_ns
from zlib import crc32

from instar.cpr.encoding import decode, encode
from instar.cpr.errors import CprError, ExecFailedError, PeerError
from instar.cpr.fds import Fds, set_cloexec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from typing import Final, NoReturn

    from instar.cpr.state import Record
    from instar.cpr.target import Target

VARIABLE: Final = "INSTAR_CPR_STATE"
SCRIPT: Final = "cpr/target"  # a script's own descriptor, for its interpreter
MAGIC: Final = b"INSTARFD"
FORMAT: Final = 1
MAX_SIZE: Final = 1 << 26  # bytes; 65536 descriptors are about 10 MiB
_HEADER: Final = Struct("<8sIII")  # magic, format, length, crc32
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_FIRST_FREE: Final = 3  # with closed standard streams a new descriptor would pass for one of them
_KEYS: Final = {"fds", "info", "program", "path", "argv"}


class ExecCarrier:
    """Replace this process's program; descriptors keep their numbers.

    Args:
        target: What to execute; stays open and is not closed here.
        argv: Arguments, the program's name first.
    """

    __slots__ = ("_argv", "_inherited", "_memfd", "_target")

    def __init__(self, target: Target, argv: list[str]) -> None:
        self._target = target
        self._argv = argv
        self._memfd = -1
        self._inherited: list[int] = []

    def save(self, fds: Fds, info: Record) -> None:
        """Write down what the new program gets; nothing is inheritable yet. Again: replaces.

        Args:
            fds: The descriptors.
            info: Whatever the new program should be told (phases of the update so far, ...).

        Raises:
            DescriptorError: A descriptor is not what it was when it was saved.
            OSError: No memory or descriptor for the memfd. Nothing stays behind.
        """
        self.drop()
        table = fds.copy()
        table.verify()
        if self._target.script:
            table.save(SCRIPT, 0, self._target.fd, kind="program", owner="cpr")
        record = {
            "fds": table.to_record(),
            "info": info,
            "program": self._target.program,
            "path": self._target.path,
            "argv": self._argv,
        }
        self._memfd = _sealed(encode(record))
        self._inherited = [entry.fd for entry in table.walk()]

    def execute(self, environ: Mapping[str, str]) -> NoReturn:
        """Become the new program.

        Args:
            environ: Its environment, to which the variable is added; this process's own is not touched.

        Raises:
            ExecFailedError: ``execvp <program> failed: <reason>``; the descriptors are close-on-exec as they
                were, the memfd is closed, and the old program goes on.
        """
        _flush_streams()
        changed: list[int] = []
        number = str(self._memfd)
        try:
            for fd in (*self._inherited, self._memfd):
                if not os.get_inheritable(fd):
                    changed.append(fd)
                    set_cloexec(fd, on=False)
            os.execve(self._target.fd, self._argv, {**environ, VARIABLE: number})  # noqa: S606 - no shell
        except (OSError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else str(exc)
            raise ExecFailedError(f"execvp {self._target.program} failed: {why}") from exc
        finally:
            _restore(changed)
            self.drop()
        raise AssertionError("exec neither worked nor failed")

    def drop(self) -> None:
        """Forget what was saved; again is fine."""
        fd, self._memfd = self._memfd, -1
        self._inherited = []
        if fd >= 0:
            os.close(fd)


class Adopted:
    """What the program before this one handed over.

    ``fds`` are the descriptors (close-on-exec again), ``info`` its news, ``argv`` what it executed, ``program`` the
    name it looked up, ``path`` where it found that, ``started_ns`` when :func:`adopt` began (monotonic).
    """

    __slots__ = ("argv", "fds", "info", "path", "program", "started_ns")

    def __init__(self, fds: Fds, info: Record, names: tuple[str, str], argv: list[str]) -> None:
        self.fds = fds
        self.info = info
        self.program, self.path = names
        self.argv = argv
        self.started_ns = 0


def adopt(environ: MutableMapping[str, str] | None = None) -> Adopted | None:
    """Take over from the program before this one, if there was one.

    Call it before anything is opened or created. The variable is taken out of the environment in any
    case. What the kernel named after a descriptor (``sys.argv[0]`` and ``__file__`` of a script, the process in
    ``ps``) gets the program's name again, and a script's own descriptor is closed.

    Returns:
        None if this is an ordinary start.

    Raises:
        PeerError: The variable or what it points to is not ours; nothing was touched.
        DescriptorError: A descriptor is missing or is not what it was.
    """
    started = monotonic_ns()
    value = (os.environ if environ is None else environ).pop(VARIABLE, None)
    if value is None:
        return None
    try:
        memfd = _number(value)
        found = _adopted(_read_sealed(memfd))
    except CprError as exc:
        exc.hint(f"without {VARIABLE} in the environment the program starts afresh")
        raise
    for entry in found.fds.walk():
        set_cloexec(entry.fd, on=not entry.stream)
    os.close(memfd)
    found.started_ns = started
    _put_names_right(found)
    return found


def _put_names_right(found: Adopted) -> None:
    _name_process(found.path)
    fd = found.fds.take(SCRIPT, 0)
    if fd < 0:
        return
    os.close(fd)
    name = f"/dev/fd/{fd}"
    if sys.argv and sys.argv[0] == name:
        sys.argv[0] = found.argv[0]
    main = sys.modules["__main__"]
    if getattr(main, "__file__", None) == name:
        main.__file__ = found.path


def _name_process(path: str) -> None:
    # Kernels before 6.14 call a program that is executed by descriptor after the number: "200" in ps.
    try:
        with open("/proc/self/comm", "r+b", buffering=0) as file:
            if file.read(16).strip().isdigit():
                file.write(os.fsencode(os.path.basename(path))[:15])
    except OSError:  # no /proc: nobody can see the name either
        return


def _flush_streams() -> None:
    # What print() holds back would be gone.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # closed, or its reader is gone
            continue


def _sealed(data: bytes) -> int:
    low = os.memfd_create("instar-cpr", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        left = memoryview(_HEADER.pack(MAGIC, FORMAT, len(data), crc32(data)) + data)
        while left:
            left = left[os.write(low, left) :]
        fcntl.fcntl(low, fcntl.F_ADD_SEALS, _SEALS)
        return fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    finally:
        os.close(low)


def _number(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 9):
        raise PeerError(
            f"{VARIABLE}={value[:48]!r}: not a descriptor's number; nothing was adopted"
        )
    return int(value)


def _read_sealed(fd: int) -> bytes:
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        size = os.fstat(fd).st_size
    except (OSError, OverflowError) as exc:
        raise PeerError(f"{VARIABLE}={fd}: not an open memfd; nothing was adopted") from exc
    if seals & _SEALS != _SEALS:
        raise PeerError(f"{VARIABLE}={fd}: the memfd is not sealed; nothing was adopted")
    if not _HEADER.size <= size <= MAX_SIZE:
        raise PeerError(f"{VARIABLE}={fd}: {size} bytes, limit {MAX_SIZE}; nothing was adopted")
    data = os.pread(fd, size, 0)
    magic, number, length, crc = _HEADER.unpack_from(data)
    if magic != MAGIC or number != FORMAT:
        text = f"magic {magic.hex()}, format {number}, expected {MAGIC.hex()}, {FORMAT}"
        raise PeerError(f"{VARIABLE}={fd}: {text}; nothing was adopted")
    body = data[_HEADER.size :]
    if len(body) != length or crc32(body) != crc:
        raise PeerError(f"{VARIABLE}={fd}: torn or damaged; nothing was adopted")
    return body


def _adopted(data: bytes) -> Adopted:
    record = decode(data, VARIABLE)
    if not isinstance(record, dict) or set(record) != _KEYS:  # pyright: ignore[reportUnknownArgumentType]
        raise PeerError(f"{VARIABLE}: expected the keys {', '.join(sorted(_KEYS))}")
    fields: Record = record  # pyright: ignore[reportUnknownVariableType]
    info, program, path = fields["info"], fields["program"], fields["path"]
    if not isinstance(info, dict) or not isinstance(program, str) or not isinstance(path, str):
        raise PeerError(f"{VARIABLE}: info, program or path is of the wrong kind")
    argv = _words(fields["argv"])
    news: Record = info  # pyright: ignore[reportUnknownVariableType]
    return Adopted(Fds.from_record(fields["fds"]), news, (program, path), argv)


def _words(value: object) -> list[str]:
    items: list[object] = value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]
    words = [word for word in items if isinstance(word, str)]
    if not words or len(words) != len(items):
        raise PeerError(f"{VARIABLE}: argv is not a list of texts; nothing was adopted")
    return words


def _restore(changed: list[int]) -> None:
    # Every one is tried: a descriptor left inheritable would leak into each later child.
    for fd in reversed(changed):
        try:
            set_cloexec(fd, on=True)
        except OSError:  # it was closed behind our back: nothing to restore
            continue
