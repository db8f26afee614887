"""What the program before this one handed over, and the ways to answer: go on, or give it back.

The table of descriptors lies in a sealed memfd, whose number is told in one environment variable. The names and the
format of both sides are here, since this is the side that is in a hurry; ``carriers`` writes it.
"""

from __future__ import annotations

import fcntl
import os
import sys
from struct import Struct
from time import monotonic_ns
from zlib import crc32

from instar.cpr.encoding import decode
from instar.cpr.errors import CprError, PeerError, TakenOverError
from instar.cpr.fds import Fds, set_cloexec
from instar.cpr.lease import DECISION, WORK, Lease

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Final

    from instar.cpr.state import Record

VARIABLE: Final = "INSTAR_CPR_STATE"
REHEARSAL: Final = "INSTAR_CPR_REHEARSAL"  # instead of VARIABLE: try everything, take over nothing
BRIDGE: Final = "INSTAR_CPR_BRIDGE"  # ... or run the vCPUs while one program becomes another
FAILED: Final = (
    "INSTAR_CPR_FAILED"  # why this program was executed again; only ever beside VARIABLE
)
SCRIPT: Final = "cpr/target"  # a script's own descriptor, for its interpreter
PREPARED: Final = "cpr/prepared"  # what the rehearsal found out for the start; of no use after it
BACK: Final = "cpr/back"  # the old program's file
GUARDIAN: Final = "cpr/guardian"  # our end of the guardian's socket
KEEPER: Final = "cpr/keeper"  # our end of the pipe of the task that holds the old address space
LEASE: Final = "cpr/lease"
MAX_REASON: Final = 1000  # characters
MAGIC: Final = b"INSTARFD"
FORMAT: Final = 1
MAX_SIZE: Final = 1 << 26  # bytes; 65536 descriptors are about 10 MiB
HEADER: Final = Struct("<8sIII")  # magic, format, length, crc32
SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_KEYS: Final = {"fds", "info", "program", "path", "argv"}


class Adopted:
    """What the program before this one handed over, and the ways to answer: :meth:`commit` or :meth:`go_back`.

    Until one of them is called nothing that was handed over may be closed.

    ``fds`` are the descriptors (close-on-exec again), ``info`` its news, ``argv`` what it executed, ``program`` the
    name it looked up, ``path`` where it found that, ``started_ns`` when :func:`adopt` began (monotonic). ``failed`` is
    why another program could not take over, "" if this is that program; ``committed`` whether this one has.
    """

    __slots__ = (
        "_closing", "_memfd", "argv", "committed", "failed", "fds", "info", "path", "program",
        "started_ns",
    )  # fmt: skip

    def __init__(self, fds: Fds, info: Record, names: tuple[str, str], argv: list[str]) -> None:
        self.fds = fds
        self.info = info
        self.program, self.path = names
        self.argv = argv
        self.failed = ""
        self.committed = False
        self.started_ns = 0
        self._memfd = -1
        self._closing: list[int] = []  # what is close-on-exec until exec

    def hold(self, memfd: int) -> None:
        """Keep the table for a way back, and everything in it close-on-exec."""
        self._memfd = memfd
        single = [entry.fd for entry in self.fds.walk() if not entry.stream]
        self._closing = [*single, *self.fds.member_numbers(), memfd]
        set_cloexec(self._closing, on=True)

    def executed(self) -> tuple[str, list[str], str]:
        """Return what was executed to start this program: path, arguments, and the descriptor's name, if it has one."""
        back = self.info.get("back")
        if self.failed and isinstance(back, dict):
            fields: Record = back  # pyright: ignore[reportUnknownVariableType]
            return str(fields.get("path", self.path)), _words(fields.get("argv")), BACK
        return self.path, self.argv, SCRIPT

    def commit(self) -> None:
        """Decide that this program goes on: from here on there is no way back.

        Raises:
            TakenOverError: The guardian has decided otherwise; end at once, and touch nothing.
        """
        fd, count = self.fds.find(LEASE, 0), self.info.get("count")
        if fd >= 0:
            self._decide(Lease(fd), count if isinstance(count, int) else -1)
        self.committed = True

    def _decide(self, shared: Lease, count: int) -> None:
        """Take the lease with an open file of our own.

        The one that came is shared with all that inherited it: a launcher that starts this program twice, or again, or
        leaves something behind. A lock of it would be everybody's, and would outlive this process.
        """
        own = shared.reopen()
        try:
            try:
                own.commit(count)
            except TakenOverError:
                if not self.failed:
                    raise
                # The guardian has decided and become this program; its open file is no one else's.
                shared.commit(count)
                return
            shared.unlock(WORK)
            os.dup2(own.fd, shared.fd, inheritable=False)
            shared.lock(WORK)
        finally:
            os.close(own.fd)

    def settle(self) -> int:
        """Drop what only a way back needed; after :meth:`commit`, when there is time.

        Returns:
            The guardian's process, to be reaped; 0 if there was none.
        """
        lease = self.fds.find(LEASE, 0)
        self._tell_guardian(b"off")
        for name in (GUARDIAN, KEEPER, BACK, SCRIPT, PREPARED):
            fd = self.fds.take(name, 0)
            if fd >= 0:
                os.close(fd)
        if self._memfd >= 0:
            os.close(self._memfd)
            self._memfd = -1
        if lease >= 0:
            Lease(lease).unlock(DECISION)
        pid = self.info.get("guardian")
        return pid if isinstance(pid, int) else 0

    def begin_again(self) -> None:
        """Tell the guardian that the old program has begun: it has as much time as the new one had."""
        self._tell_guardian(b"again")

    def wait(self) -> None:
        """Tell the guardian that a person decides now: there is no limit of time any more."""
        self._tell_guardian(b"wait")

    def end(self) -> None:
        """Tell the guardian that this program ends because somebody wanted it to."""
        self._tell_guardian(b"off")

    def go_back(self, reason: str) -> None:
        """Execute the old program again; before :meth:`commit` alone.

        Returns only if that cannot be: there is no way back, it was gone already, or the host refused.

        Args:
            reason: Why; one sentence, for the old program to tell.
        """
        back = self.info.get("back")
        fd = self.fds.find(BACK, 0)
        if self.failed or fd < 0 or not isinstance(back, dict):
            return
        fields: Record = back  # pyright: ignore[reportUnknownVariableType]
        environ = {**os.environ, VARIABLE: str(self._memfd), FAILED: reason[:MAX_REASON]}
        try:
            set_cloexec(self._closing, on=False)
            os.execve(fd, _words(fields.get("argv")), environ)  # noqa: S606 - no shell
        except (OSError, ValueError, PeerError):  # the guardian is left
            restore(self._closing)

    def _tell_guardian(self, word: bytes) -> None:
        fd = self.fds.find(GUARDIAN, 0)
        if fd < 0:
            return
        try:
            os.write(fd, word)
        except OSError:  # it is gone
            return


def adopt(environ: MutableMapping[str, str] | None = None) -> Adopted | None:
    """Take over from the program before this one, if there was one.

    Call it before anything is opened or created. The variable is taken out of the environment in any
    case. What the kernel named after a descriptor (``sys.argv[0]`` and ``__file__`` of a script, the process in
    ``ps``) gets the program's name again.

    Returns:
        None if this is an ordinary start.

    Raises:
        PeerError: The variable or what it points to is not ours; nothing was touched.
        DescriptorError: A descriptor is missing or is not what it was.
    """
    place = os.environ if environ is None else environ
    failed = place.pop(FAILED, "")
    found = _adopt(place, VARIABLE)
    if found is not None:
        found.failed = failed
        _put_names_right(found)
        if failed:
            found.begin_again()
    return found


def adopt_for_rehearsal(environ: MutableMapping[str, str] | None = None) -> Adopted | None:
    """Take what :func:`adopt` would take, in a process that only tries; None if this is no rehearsal.

    Raises:
        PeerError, DescriptorError: As :func:`adopt`.
    """
    found = _adopt(os.environ if environ is None else environ, REHEARSAL)
    if found is not None:
        _put_names_right(found)
    return found


def _adopt(place: MutableMapping[str, str], variable: str) -> Adopted | None:
    started = monotonic_ns()
    value = place.pop(variable, None)
    if value is None:
        return None
    try:
        memfd = _number(value)
        found = _adopted(_read_sealed(memfd))
    except CprError as exc:
        exc.hint(f"without {VARIABLE} in the environment the program starts afresh")
        raise
    found.hold(memfd)
    found.started_ns = started
    return found


def _put_names_right(found: Adopted) -> None:
    path, argv, name = found.executed()
    _name_process(path)
    number = found.fds.find(name, 0)
    if number < 0:
        return
    given = f"/dev/fd/{number}"
    if sys.argv and sys.argv[0] == given:
        sys.argv[0] = argv[0]
    main = sys.modules["__main__"]
    if getattr(main, "__file__", None) == given:
        main.__file__ = path


def _name_process(path: str) -> None:
    # Kernels before 6.14 call a program that is executed by descriptor after the number: "200" in ps.
    try:
        with open("/proc/self/comm", "r+b", buffering=0) as file:
            if file.read(16).strip().isdigit():
                file.write(os.fsencode(os.path.basename(path))[:15])
    except OSError:  # no /proc: nobody can see the name either
        return


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
    if seals & SEALS != SEALS:
        raise PeerError(f"{VARIABLE}={fd}: the memfd is not sealed; nothing was adopted")
    if not HEADER.size <= size <= MAX_SIZE:
        raise PeerError(f"{VARIABLE}={fd}: {size} bytes, limit {MAX_SIZE}; nothing was adopted")
    data = os.pread(fd, size, 0)
    magic, number, length, crc = HEADER.unpack_from(data)
    if magic != MAGIC or number != FORMAT:
        text = f"magic {magic.hex()}, format {number}, expected {MAGIC.hex()}, {FORMAT}"
        raise PeerError(f"{VARIABLE}={fd}: {text}; nothing was adopted")
    body = data[HEADER.size :]
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


def restore(changed: list[int]) -> None:
    """Set close-on-exec again; what was closed behind our back has nothing to restore."""
    try:
        set_cloexec(changed, on=True)
    except OSError:
        return
