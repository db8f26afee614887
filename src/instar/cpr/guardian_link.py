"""The old program's end of the guardian: start it while work goes on, give it everything at the last moment.

Not on the resume path; the new program's end is in ``carriers``.

Source: own.
"""

from __future__ import annotations

import array
import errno
import json
import os
import socket
import sys
import time

from instar.cpr.adopted import FAILED, VARIABLE
from instar.cpr.errors import UpdateRefusedError
from instar.cpr.guardian import GROUP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Final

_TRIES: Final = 200
_PAUSE_S: Final = 0.005
_LOOKS: Final = 200  # a second in all
_SIGKILL: Final = 9
_PROGRAM: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guardian.py")


class GuardianLink:
    """One guardian, for one update; make one with :meth:`start`.

    Attributes:
        pid: Its process, a child of this one.
        socket: Our end; the new program gets it.
    """

    def __init__(self, pid: int, sock: socket.socket) -> None:
        self.pid = pid
        self.socket = sock
        self._given: dict[int, object] = {}

    @classmethod
    def start(cls) -> GuardianLink:
        """Start the guardian; it is there when its word ``ready`` arrives.

        Raises:
            UpdateRefusedError: It cannot be started; nothing is left behind.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            number = theirs.fileno()
            argv = [sys.executable, "-I", "-S", _PROGRAM, str(number), str(os.getpid())]
            actions = [(os.POSIX_SPAWN_DUP2, number, number)]
            try:
                pid = os.posix_spawn(
                    f"/proc/{os.getpid()}/exe", argv, os.environ, file_actions=actions
                )
            except OSError as exc:
                ours.close()
                raise UpdateRefusedError(
                    f"the guardian cannot be started: {os.strerror(exc.errno or 0)}; the update was not begun"
                ) from exc
        return cls(pid, ours)

    def check_ready(self) -> None:
        """Take the word ``ready``, which has arrived.

        Raises:
            UpdateRefusedError: It said something else, or ended.
        """
        try:
            word = self.socket.recv(64)
        except OSError:
            word = b""
        if word != b"ready":
            raise UpdateRefusedError("the guardian did not start; the update was not begun")

    @property
    def is_there(self) -> bool:
        """Whether it has not ended; it stays to be reaped."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:  # this program ignores SIGCHLD
            return os.path.exists(f"/proc/{self.pid}")

    def give(self, members: Mapping[int, object]) -> None:
        """Hand over what there are thousands of while work goes on; what has changed by :meth:`arm` is seen to there.

        Args:
            members: Of groups, by number; what is another object later is another file.

        Raises:
            UpdateRefusedError: The guardian is gone.
        """
        self._send_descriptors(list(members))
        self._given = dict(members)

    def arm(
        self,
        numbers: Sequence[int],
        order: Mapping[str, object],
        members: Mapping[int, object] | None = None,
    ) -> None:
        """Hand over everything that the old program needs to be started again; the time begins to run.

        Args:
            numbers: All descriptors, the sealed table last.
            order: ``program`` (number of the file to execute), ``argv``, ``lease`` (its number), ``count`` (its commits
                so far), ``limit-ms`` (after so long the new program is ended, if it has not committed).
            members: Those of groups, as for :meth:`give`.

        Raises:
            UpdateRefusedError: The guardian is gone.
        """
        given, members = self._given, members or {}
        for group in _groups([fd for fd in given if fd not in members]):
            self._send("drop " + " ".join(map(str, group)), [])
        self._send_descriptors(
            [fd for fd in numbers if fd not in given or members.get(fd) is not given[fd]]
        )
        environ = {VARIABLE: str(numbers[-1])}
        self._send("arm " + json.dumps({**order, "environ": environ, "failed": FAILED}), [])

    def off(self) -> None:
        """Let it go, and reap it; a guardian that is gone already is fine."""
        try:
            self._send("off", [])
        except UpdateRefusedError:
            pass
        finally:
            self.socket.close()
        reap(self.pid)

    def _send_descriptors(self, numbers: Sequence[int]) -> None:
        for group in _groups(numbers):
            self._send("fds " + " ".join(map(str, group)), group)

    def _send(self, word: str, fds: Sequence[int]) -> None:
        rights = array.array("i", fds)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if fds else []
        for _ in range(_TRIES):
            try:
                self.socket.sendmsg([word.encode()], ancillary, socket.MSG_NOSIGNAL)
            except OSError as exc:
                if exc.errno != errno.ETOOMANYREFS:  # it has not taken the last ones yet
                    raise UpdateRefusedError(
                        f"the guardian is gone: {os.strerror(exc.errno or 0)}"
                    ) from exc
                time.sleep(_PAUSE_S)
            else:
                return
        raise UpdateRefusedError("the guardian does not take the descriptors")


def _groups(numbers: Sequence[int]) -> Iterator[list[int]]:
    for at in range(0, len(numbers), GROUP):
        yield list(numbers[at : at + GROUP])


def reap(pid: int) -> None:
    """Wait for a guardian that was told to go; one that is no child of ours is somebody else's.

    Without a descriptor: the host may have none left, which is why the update is off.
    """
    try:
        for _ in range(_LOOKS):
            if os.waitpid(pid, os.WNOHANG)[0]:
                return
            time.sleep(_PAUSE_S)
        os.kill(pid, _SIGKILL)
        os.waitpid(pid, 0)
    except (ChildProcessError, ProcessLookupError):  # whoever ignores SIGCHLD has nothing to reap
        return
