"""A disk in a raw file or on a block device of the host.

The file is locked against a second writer. The lock belongs to the open file description, so it crosses an update
with the descriptor: at no moment could another VM take it.

Source: own; what the lock protects from follows QEMU's image locking (and conflicts with it, too).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from _thread import allocate_lock
from time import monotonic_ns

from instar import log
from instar.block import file_io
from instar.block.state import BlockState
from instar.block.workers import Workers
from instar.cpr.fdsets import open_file
from instar.errors import CommandError, ConfigError, HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import ClassVar, Final, Protocol

    from instar.block.request import BlockRequest
    from instar.block.throttle import DiskThrottle
    from instar.cpr.fds import Entry
    from instar.cpr.state import State

    Post = Callable[[Callable[[], object]], object]

    class FdTable(Protocol):
        """What is needed of the table of named descriptors (``instar.cpr.fds.Fds``)."""

        def find(self, name: str, ident: int, /) -> int:
            """Return the descriptor of that name and id, or -1."""
            ...

        def save(self, name: str, ident: int, fd: int, /, *, kind: str, owner: str) -> None:
            """Name a descriptor, so that an update carries it."""
            ...

        def delete(self, name: str, ident: int, /) -> object:
            """Forget a name."""
            ...

        def walk(self, owner: str = "", /) -> Iterator[Entry]:
            """Yield the entries of an owner."""
            ...


SECTOR: Final = 512
DRAIN_MS: Final = 10_000
FD_OWNER: Final = "block"


class BlockSpec:
    """What the user asked for: one ``-drive`` or ``-blockdev``.

    Attributes:
        id: Unique name; also the name of the descriptor across updates.
        path: A file or a block device of the host.
        read_only: Nothing is ever written; several VMs may share it.
        discard: Give what the guest discards back to the host; otherwise keep it and tell the guest that all went well.
    """

    __slots__ = ("discard", "id", "path", "read_only")

    def __init__(
        self, ident: str, path: str, *, read_only: bool = False, discard: bool = False
    ) -> None:
        self.id = ident
        self.path = path
        self.read_only = read_only
        self.discard = discard


class RawBlock:
    """An open disk; make one with :func:`open_block`.

    Requests on it may end in any order. ``submit``, ``drain`` and the completions happen with the machine lock held.

    Attributes:
        id: Of the spec.
        path: Of the spec, for people.
        size: Bytes, a multiple of 512.
        read_only: Writes fail.
        state: What was counted; the host's side of the state.
        throttle: What holds requests back; None: nothing ever does.
        drain_ms: How long :meth:`drain` waits for the host.
    """

    __slots__ = (
        "_discard",
        "_done",
        "_fd",
        "_fds",
        "_idle",
        "_in_flight",
        "_locked",
        "_post",
        "_post_or_run",
        "_workers",
        "drain_ms",
        "id",
        "path",
        "read_only",
        "size",
        "state",
        "state_id",
        "throttle",
    )
    state_class: ClassVar[type[State]] = BlockState

    def __init__(  # noqa: PLR0913 - one disk, all of it known when it is made
        self,
        spec: BlockSpec,
        fd: int,
        size: int,
        fds: FdTable,
        post: Post,
        *,
        post_or_run: Post,
        inline: bool,
    ) -> None:
        self.id = spec.id
        self.path = spec.path
        self.state_id = f"block/{spec.id}"
        self.state = BlockState()
        self.read_only = spec.read_only
        self.throttle: DiskThrottle | None = None
        self.drain_ms = DRAIN_MS
        self._discard = spec.discard
        self.size = size
        self._fd = fd
        self._fds = fds
        self._post = post
        self._post_or_run = post_or_run
        self._workers = None if inline else Workers()
        self._locked = False
        self._in_flight = 0  # requests submitted and not delivered; the machine lock guards it
        self._done: list[tuple[BlockRequest, int]] = []  # carried out, not delivered
        self._idle = allocate_lock()  # released by each worker that carried a request out
        self._idle.acquire()

    def submit(self, request: BlockRequest) -> None:
        """Start ``request``; its ``done`` is called later, with the machine lock held, or before this returns."""
        request.started_ns = monotonic_ns()
        if self.throttle is None or not self.throttle.holds(request):
            self.start(request)

    def start(self, request: BlockRequest) -> None:
        """Do what :meth:`submit` does, whatever the limits are; the throttle calls it for what it held back."""
        if self.read_only and request.op not in {"read", "flush"}:
            request.done(errno.EROFS)
        elif request.offset + request.length > self.size:
            request.done(errno.EINVAL)
        elif request.op == "discard" and not self._discard:
            self._finish(request, 0)  # discarding is advice
        elif self._workers is None:
            self._finish(request, file_io.perform(self._fd, request))
        elif request.op == "read" and file_io.read_cached(self._fd, request):
            self._finish(request, 0)  # handing it to a thread and back takes longer than the read
        else:
            self._in_flight += 1
            self._workers.run(lambda: self._work(request))

    def forget(self) -> None:
        """Forget the requests that the throttle holds back; their ``done`` is not called."""
        if self.throttle is not None:
            self.throttle.forget()

    def drain(self) -> str:
        """Wait until nothing is in flight, at most ``drain_ms``; the completions are delivered from here.

        What the throttle holds back has not begun and stays where it is.

        Returns:
            "", or what the host did not finish: it uses the guest's memory still.
        """
        deadline_ns = monotonic_ns() + self.drain_ms * 1_000_000
        while self._in_flight:
            self._deliver()
            left_ns = deadline_ns - monotonic_ns()
            if self._in_flight and (
                left_ns <= 0 or not self._idle.acquire(timeout=left_ns / 1_000_000_000)
            ):
                return (
                    f"disk {self.id}: the host did not finish {self._in_flight} requests on {self.path} "
                    f"in {self.drain_ms} ms"
                )
        return ""

    def finish(self) -> None:
        """Return when nothing is in flight, however long the host takes: the memory is the guest's again."""
        while why := self.drain():
            log.limited("warning", f"disk {self.id}", f"{why}; the machine waits for them")

    def resize(self, size: int) -> None:
        """Make the disk larger (with zeroes) or smaller (what is behind the new end is lost).

        Args:
            size: Bytes, a multiple of 512.

        Raises:
            CommandError: it cannot have that size; nothing changed.
            HostError: the host refused, or does not finish what is in flight; nothing changed.
        """
        if self.read_only:
            raise CommandError(f"disk {self.id}: the image is read-only; its size did not change")
        if size < 0 or size % SECTOR:
            raise CommandError(
                f"disk {self.id}: size {size} is not a multiple of {SECTOR} bytes; it did not change"
            )
        self._drain_or_refuse()
        if stat.S_ISREG(os.fstat(self._fd).st_mode):
            try:
                os.ftruncate(self._fd, size)
            except OSError as e:
                raise HostError(
                    f"disk {self.id}: cannot make {self.path} {size} bytes long: {_reason(e)}"
                ) from e
        elif size > os.lseek(self._fd, 0, os.SEEK_END):
            raise CommandError(
                f"disk {self.id}: {size} bytes are more than the device {self.path} has; cannot grow device files"
            )
        self.size = size

    def save_state(self) -> BlockState:
        """Return the live counters."""
        return self.state

    def load_state(self, state: BlockState) -> None:
        """Go on counting from ``state``."""
        self.state = state

    def activate(self) -> None:
        """Take the lock; this VM owns the disk now.

        Raises:
            HostError: another VM has it; nothing changed.
        """
        if self._locked:
            return
        try:
            got = file_io.lock(self._fd, exclusive=not self.read_only)
        except OSError as e:
            raise HostError(f"disk {self.id}: cannot lock {self.path}: {_reason(e)}") from e
        if not got:
            kind = "shared" if self.read_only else "write"
            raise HostError(
                f'disk {self.id}: failed to get "{kind}" lock on {self.path}: another program has it open'
            ).hint("is another virtual machine using it?")
        self._locked = True
        size = os.lseek(self._fd, 0, os.SEEK_END)  # whoever had it until now may have resized it
        self.size = size - size % SECTOR

    def flush_ahead(self) -> None:
        """Bring to the disk what was written so far, so that :meth:`inactivate` has little to do; from any thread.

        What the host refuses is for whoever has to know: the next flush says it.
        """
        try:
            os.fdatasync(self._fd)
        except OSError:
            return

    def inactivate(self) -> None:
        """Finish all requests, bring them to the disk, give the lock up: another VM may own the disk.

        Raises:
            HostError: the bytes could not be brought to the disk; the lock is still held.
        """
        self._drain_or_refuse()
        if not self.read_only:
            try:
                os.fdatasync(self._fd)
            except OSError as e:
                raise HostError(f"disk {self.id}: cannot flush {self.path}: {_reason(e)}") from e
        if self._locked:
            file_io.unlock(self._fd)
            self._locked = False

    def close(self) -> None:
        """Finish all requests and close the file; the lock goes with it."""
        self.finish()
        if self._workers is not None:
            self._workers.close()
        self._fds.delete(f"block/{self.id}", 0)
        os.close(self._fd)
        self._fd = -1

    def _drain_or_refuse(self) -> None:
        if why := self.drain():
            raise HostError(why)

    def _work(self, request: BlockRequest) -> None:  # in a worker thread, without the machine lock
        try:
            error = file_io.perform(self._fd, request)
        except (
            BaseException
        ) as e:  # our bug; but an answer never given would hang guest and updates
            log.error(f"disk {self.id}: internal error in {request.op}: {e!r}. Please report it")
            error = errno.EIO
        # What follows from a failure (events, a stop) is the main thread's.
        self._done.append((request, error))  # one list operation: atomic
        if error:
            self._post(self._deliver)
        else:
            self._post_or_run(self._deliver_one)
        try:
            self._idle.release()
        except RuntimeError:  # it is free already: drain() will look
            return

    def _deliver(self) -> None:
        while self._done:
            request, error = self._done.pop(0)
            self._in_flight -= 1
            self._finish(request, error)

    def _deliver_one(self) -> None:
        """Deliver the first that succeeded, if there is one: drain() may have been faster."""
        for n, (request, error) in enumerate(self._done):
            if not error:
                del self._done[n]
                self._in_flight -= 1
                self._finish(request, 0)
                return

    def _finish(self, request: BlockRequest, error: int) -> None:
        """Count, report a failure, and tell who asked."""
        spent_ns = monotonic_ns() - request.started_ns
        self.state.count(request.op, request.offset, request.length, error, spent_ns)
        if error and error != errno.EOPNOTSUPP:
            log.limited(
                "error",
                f"disk {self.id}",
                f"{request.op} of {request.length} bytes at {request.offset} failed: "
                f"{os.strerror(error)}",
            )
        request.done(error)


def open_block(  # noqa: PLR0913 - what a disk needs from around it
    spec: BlockSpec,
    fds: FdTable,
    post: Post,
    *,
    post_or_run: Post | None = None,
    inline: bool = False,
    active: bool = True,
    inert: bool = False,
) -> RawBlock:
    """Open and lock the disk of ``spec``, or go on with the descriptor that an update brought.

    Args:
        spec: What the user asked for.
        fds: The table of named descriptors.
        post: Runs a call in the main loop with the machine lock held; callable from any thread.
        post_or_run: Like ``post``, or at once in the calling thread, which is a worker's: for requests that succeeded.
        inline: Do all I/O inside ``submit``: slower, and independent of host timing.
        active: Take the lock now; otherwise :meth:`RawBlock.activate` does.
        inert: In a rehearsal: the descriptor that an update brought is for reading only; without one, refuse.

    Raises:
        ConfigError: it is not a disk, or not the one that the guest uses; nothing is left open.
        HostError: the host refused, or another VM has it; nothing is left open.
    """
    inherited = fds.find(f"block/{spec.id}", 0)
    if inert and inherited < 0:
        raise ConfigError(f"disk {spec.id}: the program before has no such disk")
    fd = inherited if inherited >= 0 else _open(spec, fds)
    try:
        if inherited >= 0:
            _check_same(spec, fd, access=not inert)
        size = _measure(spec, fd)
        block = RawBlock(spec, fd, size, fds, post, post_or_run=post_or_run or post, inline=inline)
        if active:
            block.activate()
    except BaseException:
        if inherited < 0:
            os.close(fd)
        raise
    if inherited < 0:
        fds.save(f"block/{spec.id}", 0, fd, kind="block", owner=FD_OWNER)
    return block


def _open(spec: BlockSpec, fds: FdTable) -> int:
    # Not blocking: a FIFO somebody named by mistake is refused below instead of hanging here.
    access = os.O_RDONLY if spec.read_only else os.O_RDWR
    try:
        return open_file(spec.path, access | os.O_CLOEXEC | os.O_NONBLOCK, fds=fds)
    except OSError as e:
        raise HostError(f"disk {spec.id}: could not open {spec.path}: {_reason(e)}") from e


def _measure(spec: BlockSpec, fd: int) -> int:
    """Return the size in bytes, rounded down to whole sectors."""
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        raise ConfigError(f"disk {spec.id}: {spec.path} is neither a file nor a block device")
    size = os.lseek(fd, 0, os.SEEK_END)
    rest = size % SECTOR
    if rest:
        log.warning(
            f"disk {spec.id}: {spec.path} has {size} bytes; the last {rest} are no whole sector "
            f"and the guest does not see them"
        )
    return size - rest


def _check_same(spec: BlockSpec, fd: int, *, access: bool) -> None:
    """Refuse a command line that names another disk than the running guest has, or has it with other ``access``."""
    mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    if access and (mode == os.O_RDONLY) != spec.read_only:
        was = "read-only" if mode == os.O_RDONLY else "writable"
        raise ConfigError(f"disk {spec.id}: the running guest has it {was}, this command line not")
    try:
        there = os.stat(spec.path)
    except OSError:
        return  # renamed or removed meanwhile: the guest keeps the file it has
    here = os.fstat(fd)
    if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
        raise ConfigError(
            f"disk {spec.id}: {spec.path} is not the file that the running guest has"
        )


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or errno.EIO)
