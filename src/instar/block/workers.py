"""A few threads that wait for the disk, so that neither guest nor monitor does."""

from __future__ import annotations

from _thread import allocate_lock

from instar import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    Job = Callable[[], object]

MAX_THREADS: Final = 4  # per disk; more do not make one file faster


class _Worker:
    """A thread that sleeps on its own lock between jobs."""

    __slots__ = ("job", "wake")

    def __init__(self) -> None:
        self.wake = allocate_lock()
        self.wake.acquire()
        self.job: Job | None = None


class Workers:
    """Run jobs in threads, started as needed; jobs must not raise."""

    __slots__ = ("_backlog", "_count", "_idle", "_lock")

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._idle: list[_Worker] = []
        self._backlog: list[Job] = []
        self._count = 0

    def run(self, job: Job) -> None:
        """Have ``job`` run soon; jobs may run at the same time and in any order."""
        with self._lock:
            if self._idle:
                worker = self._idle.pop()
                worker.job = job
                worker.wake.release()
                return
            if self._count < MAX_THREADS and self._start(job):
                return
            if self._count:
                self._backlog.append(job)
                return
        job()  # the host gives us no thread at all: slow, but done

    def _start(self, job: Job) -> bool:
        try:
            signals.start_thread(self._work, _Worker(), job)
        except RuntimeError:  # a limit of the host; those that run are enough
            return False
        self._count += 1
        return True

    def close(self) -> None:
        """End the threads; nothing may be queued or running."""
        with self._lock:
            for worker in self._idle:
                worker.job = None
                worker.wake.release()
            self._idle.clear()
            self._count = 0

    def _work(self, me: _Worker, job: Job | None) -> None:
        while job is not None:
            job()
            with self._lock:
                job = self._backlog.pop(0) if self._backlog else None
                if job is None:
                    self._idle.append(me)
            if job is None:
                me.wake.acquire()
                job = me.job
