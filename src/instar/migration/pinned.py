"""The program of one update: opened once, allowed, executable here, and known by its digest before the guest stops.

Not on the resume path. One object for one update; :mod:`instar.migration.outgoing` calls it row by row.

Source: own; docs/decisions/0008.
"""

from __future__ import annotations

import os

from instar import log, signals
from instar.cpr.allow import check_allowed
from instar.cpr.digest import digest_of
from instar.cpr.errors import CprError, TargetError
from instar.cpr.permission import Permission
from instar.cpr.target import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

    from instar.loop import Loop

_PATIENCE_NS: Final = 30_000_000_000


class Pinned:
    """What will be executed.

    Args:
        loop: The main loop.
        program: Path, or a name to look up.
        allowed: Of ``-exec-allow``.

    Raises:
        TargetError: There is no such program, or it is not allowed; nothing stays open.

    Attributes:
        target: The program, open.
        digest: ``sha256:hex`` (see :mod:`instar.cpr.digest`), "" until it is known.
    """

    def __init__(self, loop: Loop, program: str, allowed: Sequence[str]) -> None:
        self._loop = loop
        self.target = Target.open(program)
        self.digest = ""
        self._permission: Permission | None = None
        self._job: _Job | None = None
        try:
            check_allowed(self.target, allowed)
        except TargetError:
            self.target.close()
            raise
        if lost := self.target.lost_privileges():
            log.warning(f"update: {lost}")

    def close(self) -> None:
        """Forget the program."""
        self.target.close()

    # May it be executed here?

    def ask(self, go_on: Callable[[], object]) -> None:
        """Have a child try it; ``go_on`` is called when it has.

        Raises:
            TargetError: Nothing may be executed here.
        """
        permission = self._permission = Permission.ask(self.target)
        timer = self._loop.call_later(_PATIENCE_NS, lambda: said())  # noqa: PLW0108 - it is defined below

        def said() -> None:
            timer.cancel()
            if self._permission is permission and permission.pipe >= 0:
                self._loop.unwatch(permission.pipe)
                go_on()

        self._loop.watch(permission.pipe, readable=said)

    def check_permission(self) -> None:
        """Take the child's answer.

        Raises:
            TargetError: It may not be executed, and why.
        """
        if self._permission is None:
            return
        os.set_blocking(self._permission.pipe, False)
        try:
            self._permission.check()
        except BlockingIOError as e:
            raise TargetError(
                f"execvp {self.target.program} failed: a child that tries it does not answer; "
                "the guest was not stopped"
            ) from e
        finally:
            self.end_asking()

    def end_asking(self) -> None:
        """End the child that tries; again is fine."""
        permission, self._permission = self._permission, None
        if permission is not None:
            self._loop.unwatch(permission.pipe)
            permission.close()

    # What is it?

    def begin_digest(self, package: str, go_on: Callable[[], object]) -> bool:
        """Read the program in a thread of its own; ``go_on`` is called when its digest is known.

        Args:
            package: Where the release lies that a script imports; "" if nobody told.
            go_on: Called in the main thread.

        Returns:
            Whether there is anything to wait for: a script whose release is not known has no digest.
        """
        if self.target.script and not package:
            return False
        job = self._job = _Job(self.target, package if self.target.script else "")

        def done() -> None:
            if self._job is job:
                go_on()

        job.start(lambda: self._loop.call_threadsafe(done))
        return True

    def check_digest(self, wanted: str) -> None:
        """Take the digest and compare it with the one that is asked for.

        Args:
            wanted: ``cpr-exec-digest``; "" is any.

        Raises:
            TargetError: It is another one, or there is none.
        """
        job, self._job = self._job, None
        program = self.target.program
        if job is not None:
            if job.error:
                raise TargetError(
                    f"the digest of {program}: {job.error}; the guest was not stopped"
                )
            self.digest = job.digest
        if wanted and self.digest != wanted:
            has = (
                f"is {self.digest}"
                if self.digest
                else (
                    "has no digest, as no rehearsal (x-update-rehearsal) told where its release lies"
                )
            )
            raise TargetError(
                f"{program} {has}, but cpr-exec-digest is {wanted}; the guest was not stopped"
            )

    def end_digest(self) -> None:
        """Let the thread end; again is fine."""
        job, self._job = self._job, None
        if job is not None:
            job.stopped = True


class _Job:
    """One digest in the making, over a descriptor of its own: the update may end before it does."""

    __slots__ = ("_fd", "_package", "digest", "error", "stopped")

    def __init__(self, target: Target, package: str) -> None:
        self._fd = os.dup(target.fd)
        self._package = package
        self.digest = ""
        self.error = ""
        self.stopped = False

    def start(self, on_done: Callable[[], object]) -> None:
        """Begin; ``on_done`` is called in any thread."""
        try:
            signals.start_thread(self._work, on_done)
        except RuntimeError:  # the host has no thread for us: slow, but done
            self._work(on_done)

    def _work(self, on_done: Callable[[], object]) -> None:
        try:
            self.digest = digest_of(self._fd, self._package, lambda: self.stopped)
        except (OSError, CprError) as e:
            self.error = (e.strerror or str(e)) if isinstance(e, OSError) else str(e)
        finally:
            os.close(self._fd)
            on_done()
