"""The threads of the vCPUs: each runs one, comes out for devices, and parks when told to.

A thread holds neither the GIL nor the machine lock while its guest runs. What keeps a kick from being lost is in
``compiled/run.c``. A thread that parks has first let the kernel finish the access that its vCPU came out for: a value
that was read from a device is in the guest's register before anybody looks at it.

Source: own; Linux Documentation/virt/kvm/api.rst, "immediate_exit" and the note to KVM_EXIT_IO in section 5.
"""

from __future__ import annotations

import _thread
import errno

from instar import signals
from instar.cpu.kvm import _run, uapi
from instar.cpu.kvm.calls import refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from instar.cpu.kvm.kvm import KvmVcpu

    T = TypeVar("T")


class VcpuThread:
    """One vCPU's thread; :class:`Threads` tells it what to do.

    Attributes:
        thread_id: The host's id of the thread, 0 before it has begun.
    """

    __slots__ = (
        "begun",
        "go",
        "ident",
        "inside",
        "on_bug",
        "parked",
        "serve",
        "thread_id",
        "threads",
        "vcpu",
    )

    def __init__(
        self,
        threads: Threads,
        vcpu: KvmVcpu,
        serve: Callable[[], object],
        on_bug: Callable[[BaseException], object],
    ) -> None:
        self.threads = threads
        self.vcpu = vcpu
        self.serve = serve
        self.on_bug = on_bug
        self.thread_id = 0
        self.ident = 0
        self.inside = _thread.allocate_lock()  # held while the guest may run
        # Locks serve as binary semaphores: they need no descriptor.
        self.go = _thread.allocate_lock()
        self.begun = _thread.allocate_lock()
        self.parked = _thread.allocate_lock()
        for semaphore in (self.go, self.begun, self.parked):
            semaphore.acquire()

    def main(self) -> None:
        """Run in the thread, for ever."""
        _run.accept_kicks()
        self.thread_id = _thread.get_native_id()
        self.begun.release()
        while True:
            self.go.acquire()
            self.begun.release()
            try:
                self._until_stopped()
                self._finish()
            except (
                BaseException
            ) as e:  # else the thread would end, and pause() would wait for ever
                self.threads.hold()
                self.on_bug(e)
            self.parked.release()

    def kick(self) -> None:
        """Make it come out of the guest, or not go in, as long as the byte is set."""
        self.vcpu.shared[uapi.RUN_IMMEDIATE_EXIT] = 1
        if self.thread_id:
            _run.kick(self.thread_id)

    def _until_stopped(self) -> None:
        threads, run, fd, inside, serve = (
            self.threads,
            _run.run,
            self.vcpu.fd,
            self.inside,
            self.serve,
        )
        while not threads.stop:
            with inside:
                error = run(fd)
            if not error:
                serve()
            elif error not in (errno.EINTR, errno.EAGAIN):
                raise self._failed(error)

    def _finish(self) -> None:
        """Complete the access that is half done; an instruction that repeats it may take several turns."""
        while True:
            self.vcpu.shared[uapi.RUN_IMMEDIATE_EXIT] = 1
            with self.inside:
                error = _run.run(self.vcpu.fd)
            if not error:
                self.serve()
            elif error == errno.EINTR:
                return
            elif error != errno.EAGAIN:
                raise self._failed(error)

    def _failed(self, error: int) -> BaseException:
        cause = OSError(error, "")
        failed = refused(uapi.RUN, f"vCPU {self.vcpu.number}", cause)
        failed.__cause__ = cause
        return failed


class Threads:
    """All vCPUs' threads, which run and park together.

    Attributes:
        stop: They are to park; only ever set for all of them.
    """

    __slots__ = ("_held", "_members", "_running", "stop")

    def __init__(self) -> None:
        self._members: tuple[VcpuThread, ...] = ()
        self._running = False
        self._held = False  # parked for the main loop to act: only resume() lets the vCPUs go on
        self.stop = True

    def add(
        self,
        vcpu: KvmVcpu,
        serve: Callable[[], object],
        on_bug: Callable[[BaseException], object],
    ) -> None:
        """Give a vCPU a thread, which is not started yet."""
        self._members += (VcpuThread(self, vcpu, serve, on_bug),)

    @property
    def members(self) -> Sequence[VcpuThread]:
        """The threads, by vCPU."""
        return self._members

    def get_ready(self) -> None:
        """Start the threads, parked; having them is fine.

        Raises:
            RuntimeError: The host has no more threads for us; those that began wait parked.
        """
        for thread in self._members:
            if not thread.ident:
                thread.ident = signals.start_thread(thread.main)
                thread.begun.acquire()  # it may still fail to begin: better here than when only it can go on

    def resume(self) -> None:
        """Let the vCPUs run; already running is fine. All threads have begun when this returns."""
        if self._running:
            return
        self.get_ready()
        self._running = True
        self._held = False
        self.stop = False
        for thread in self._members:
            thread.vcpu.shared[uapi.RUN_IMMEDIATE_EXIT] = 0
        for thread in self._members:
            thread.go.release()
        for thread in self._members:
            thread.begun.acquire()

    def pause(self) -> None:
        """Park all and return when they are parked; never in a vCPU's thread nor with the machine lock held."""
        if not self._running:
            return
        self._ask_to_park()
        for thread in self._members:
            thread.parked.acquire()
        self._running = False

    def hold(self) -> None:
        """Make all vCPUs park until :meth:`resume`; from any thread, and without waiting for it."""
        self._held = True
        self._ask_to_park()

    def parked(self, look: Callable[[], T]) -> T:
        """Call ``look`` while the vCPUs stand still, and let them go on if they ran and nobody held them.

        In a vCPU's thread the others are kept out of the guest, wherever they are: they may wait for the machine lock.
        """
        own = _thread.get_ident()
        if any(thread.ident == own for thread in self._members):
            return self._outside(own, look)
        was_running = self._running
        self.pause()
        try:
            return look()
        finally:
            if was_running and not self._held:
                self.resume()

    def _outside(self, own: int, look: Callable[[], T]) -> T:
        others = [thread for thread in self._members if thread.ident != own]
        for thread in others:
            thread.kick()
            thread.inside.acquire()
        try:
            return look()
        finally:
            for thread in others:
                thread.vcpu.shared[uapi.RUN_IMMEDIATE_EXIT] = 0
                if self.stop:  # asked for in the meantime, or right now
                    thread.kick()
                thread.inside.release()

    def _ask_to_park(self) -> None:
        self.stop = True
        for thread in self._members:
            thread.kick()
