"""The monitor's main loop: file descriptors, timers and bottom halves over one epoll.

It is small on purpose: asyncio's import alone takes longer than the pause of an update.
Everything here runs in the thread that calls :meth:`Loop.run`, except :meth:`Loop.call_threadsafe`.
"""

from __future__ import annotations

import os
import select
from _heapq import heapify, heappop, heappush  # heapq itself is longer than this module
from time import monotonic_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Callback = Callable[[], object]

_FEW_TIMERS = 64  # not worth looking for cancelled ones among them
_MAX_EVENTS = 64  # descriptors served a turn, so that timers are never starved


class Timer:
    """A call at a point of host monotonic time; :meth:`cancel` forgets it."""

    __slots__ = ("at_ns", "callback", "order")

    def __init__(self, at_ns: int, order: int, callback: Callback) -> None:
        self.at_ns = at_ns
        self.order = order
        self.callback: Callback | None = callback

    def __lt__(self, other: Timer) -> bool:
        return (self.at_ns, self.order) < (other.at_ns, other.order)

    def cancel(self) -> None:
        """Forget the call; calling again, or after it ran, does nothing."""
        self.callback = None


class Loop:
    """Serve descriptors, timers and bottom halves until :meth:`quit`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()  # close-on-exec by default
        self._handlers: dict[int, tuple[Callback | None, Callback | None]] = {}
        self._always: set[int] = set()  # regular files: epoll refuses them, they are always ready
        self._timers: list[Timer] = []
        self._sweep_at = _FEW_TIMERS  # timers at which cancelled ones are dropped
        self._order = 0
        self._soon: list[Callback] = []
        self._running = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watch(self._wake, readable=self._drain_wake)

    @property
    def wake_fd(self) -> int:
        """The loop's own event descriptor, for a filter that lets it be written to."""
        return self._wake

    def watch(
        self, fd: int, *, readable: Callback | None = None, writable: Callback | None = None
    ) -> None:
        """Call ``readable``/``writable`` when ``fd`` is ready; replaces an earlier watch.

        End of file and errors count as ready. With neither callback the descriptor is unwatched.
        """
        if readable is None and writable is None:
            self.unwatch(fd)
            return
        mask = (select.EPOLLIN if readable else 0) | (select.EPOLLOUT if writable else 0)
        if fd in self._handlers and fd not in self._always:
            self._epoll.modify(fd, mask)
        elif fd not in self._always:
            try:
                self._epoll.register(fd, mask)
            except PermissionError:  # EPERM: a regular file or /dev/null
                self._always.add(fd)
        self._handlers[fd] = (readable, writable)

    def unwatch(self, fd: int) -> None:
        """Stop watching ``fd``; not watching it already is fine."""
        if self._handlers.pop(fd, None) is None:
            return
        if fd in self._always:
            self._always.discard(fd)
        else:
            self._epoll.unregister(fd)

    def call_soon(self, callback: Callback) -> None:
        """Run ``callback`` in this loop's next turn (a bottom half)."""
        self._soon.append(callback)

    def call_threadsafe(self, callback: Callback) -> None:
        """Like :meth:`call_soon`, from any thread; wakes the loop."""
        self._soon.append(callback)  # list.append is atomic
        os.eventfd_write(self._wake, 1)

    def call_later(self, delay_ns: int, callback: Callback) -> Timer:
        """Run ``callback`` once, ``delay_ns`` nanoseconds from now (at once if negative)."""
        if len(self._timers) >= self._sweep_at:
            self._timers = [timer for timer in self._timers if timer.callback is not None]
            heapify(self._timers)
            self._sweep_at = max(_FEW_TIMERS, 2 * len(self._timers))
        self._order += 1
        timer = Timer(monotonic_ns() + delay_ns, self._order, callback)
        heappush(self._timers, timer)
        return timer

    def run(self) -> None:
        """Serve until :meth:`quit`; what was queued before is kept for the next run."""
        self._running = True
        while self._running:
            self.turn(None)

    def quit(self) -> None:
        """Leave :meth:`run` after the current turn."""
        self._running = False
        os.eventfd_write(self._wake, 1)

    def turn(self, timeout_ns: int | None) -> None:
        """Do one turn: wait at most ``timeout_ns`` (None: until something happens), then serve."""
        for fd, mask in self._poll(timeout_ns):
            handlers = self._handlers.get(fd)  # an earlier handler may have unwatched it
            if handlers is None:
                continue
            readable, writable = handlers
            if readable and mask & ~select.EPOLLOUT:
                readable()
            if writable and mask & ~select.EPOLLIN and self._handlers.get(fd) == handlers:
                writable()
        self._run_timers()
        for _ in range(len(self._soon)):  # never swapped: other threads append to this very list
            self._soon.pop(0)()

    def _poll(self, timeout_ns: int | None) -> list[tuple[int, int]]:
        wait = -1.0 if timeout_ns is None else timeout_ns / 1e9
        while self._timers and self._timers[0].callback is None:
            heappop(self._timers)
        if self._soon or self._always:
            wait = 0.0
        elif self._timers:
            left = max(0, self._timers[0].at_ns - monotonic_ns()) / 1e9
            wait = left if wait < 0 else min(wait, left)
        ready = self._epoll.poll(wait, _MAX_EVENTS)
        ready += [(fd, select.EPOLLIN | select.EPOLLOUT) for fd in self._always]
        return ready

    def _run_timers(self) -> None:
        now = monotonic_ns()
        while self._timers and self._timers[0].at_ns <= now:
            callback = heappop(self._timers).callback
            if callback is not None:
                callback()

    def _drain_wake(self) -> None:
        os.eventfd_read(self._wake)
