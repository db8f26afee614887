"""Where random bytes come from."""

from __future__ import annotations

import errno
import os
import stat

from instar.errors import ConfigError, HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    WhenRunning = Callable[[Callable[[], object]], object]

    class EntropySource(Protocol):
        """Host side of virtio-rng."""

        def read(self, count: int, /) -> bytes:
            """Return 1 to ``count`` bytes, or none if there are none now; HostError if there never will be."""
            ...

        def when_ready(self, callback: Callable[[], object], /) -> None:
            """Call once, with the machine lock held, when :meth:`read` may have bytes again."""
            ...

    class Watcher(Protocol):
        """What is needed of :class:`instar.loop.Loop`."""

        def watch(self, fd: int, *, readable: Callable[[], object] | None = None) -> None:
            """Call ``readable`` when ``fd`` is."""
            ...

        def unwatch(self, fd: int, /) -> None:
            """Stop that."""
            ...

        def call_threadsafe(self, callback: Callable[[], object], /) -> None:
            """Call in the loop's thread."""
            ...


class SystemEntropy:
    """The host kernel's generator (``rng-builtin``); it never runs dry."""

    __slots__ = ()

    def read(self, count: int) -> bytes:
        """Return ``count`` bytes."""
        return os.urandom(count)

    def when_ready(self, callback: Callable[[], object]) -> None:
        """Call at once: there are always bytes."""
        callback()


class FileEntropy:
    """A character device or FIFO of the host (``rng-random,filename=``).

    Args:
        filename: What to read; a regular file would end or repeat and is refused.
        loop: Tells when there are bytes.
        when_running: Runs a call with the machine lock held, now or once the machine runs; in the main thread. What a
            stopped machine's RAM holds may have been saved already.

    Raises:
        ConfigError: it is neither a character device nor a FIFO.
        HostError: it cannot be opened.
    """

    __slots__ = ("_fd", "_filename", "_loop", "_waiting", "_when_running")

    def __init__(self, filename: str, loop: Watcher, when_running: WhenRunning) -> None:
        self._filename = filename
        self._loop = loop
        self._when_running = when_running
        self._waiting: Callable[[], object] | None = None
        try:
            self._fd = os.open(filename, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as e:
            reason = os.strerror(e.errno or errno.EIO)
            raise HostError(f"rng-random: could not open {filename}: {reason}") from e
        try:
            _check_kind(filename, os.fstat(self._fd))
        except ConfigError:
            os.close(self._fd)
            raise

    def read(self, count: int) -> bytes:
        """Return what there is, at most ``count`` bytes.

        Raises:
            HostError: it ended or failed.
        """
        try:
            data = os.read(self._fd, count)
        except BlockingIOError:
            return b""
        except OSError as e:
            reason = os.strerror(e.errno or errno.EIO)
            raise HostError(f"rng-random: cannot read {self._filename}: {reason}") from e
        if not data:
            raise HostError(f"rng-random: {self._filename} ended")
        return data

    def when_ready(self, callback: Callable[[], object]) -> None:
        """Call once when there are bytes; a later call replaces an earlier one."""
        self._waiting = callback
        self._loop.call_threadsafe(self._watch)

    def close(self) -> None:
        """Close the file; nobody waits any more."""
        self._waiting = None
        self._loop.unwatch(self._fd)
        os.close(self._fd)

    def _watch(self) -> None:
        if self._waiting is not None:
            self._loop.watch(self._fd, readable=self._readable)

    def _readable(self) -> None:
        self._loop.unwatch(self._fd)
        callback, self._waiting = self._waiting, None
        if callback is not None:
            self._when_running(callback)


def check_source(filename: str) -> None:
    """Look whether :class:`FileEntropy` could read ``filename``, without opening it.

    Raises:
        ConfigError: it is neither a character device nor a FIFO.
        HostError: it is not there, or not readable.
    """
    try:
        found = os.stat(filename)
        if not os.access(filename, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as e:
        reason = os.strerror(e.errno or errno.EIO)
        raise HostError(f"rng-random: could not open {filename}: {reason}") from e
    _check_kind(filename, found)


def _check_kind(filename: str, found: os.stat_result) -> None:
    if not stat.S_ISCHR(found.st_mode) and not stat.S_ISFIFO(found.st_mode):
        raise ConfigError(f"rng-random: {filename} is neither a character device nor a FIFO")
