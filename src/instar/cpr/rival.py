"""The program at the other end of a hand-over, when it does not answer: who owns the work is found out or decided.

Not on the resume path. Source: own; Linux's pidfd_open(2), unix(7) SO_PEERCRED.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from struct import Struct
from typing import TYPE_CHECKING

from instar.cpr.errors import TakenOverError
from instar.cpr.lease import DECISION, WORK

if TYPE_CHECKING:
    from typing import Final, Literal

    from instar.cpr.lease import Lease

    Owner = Literal["ours", "theirs", "unknown"]

_CREDENTIALS: Final = Struct("3i")  # struct ucred: pid, uid, gid
_TRIES: Final = 400
_PAUSE_S: Final = 0.005
_STANDING: Final = b"TtZX"  # letters of /proc/PID/stat: stopped, traced, ended


class Rival:
    """A process, held by its pidfd.

    Args:
        sock: A unix socket that is connected to it.

    Attributes:
        fd: The pidfd; it can be read once the process has ended.

    Raises:
        OSError: It is not to be seen from here (another PID namespace), or has ended.
    """

    def __init__(self, sock: socket.socket) -> None:
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.pid: int = _CREDENTIALS.unpack(data)[0]
        self.fd = os.pidfd_open(self.pid)

    def wait_end(self, patience_ms: int) -> bool:
        """Wait until it has ended, and all that it had is closed; false if it has not by then."""
        return bool(select.select([self.fd], [], [], patience_ms / 1000)[0])

    def kill(self) -> bool:
        """End it and wait for that; false if this program may not."""
        return self._send(signal.SIGKILL) and self.wait_end(int(_TRIES * _PAUSE_S * 1000))

    def stop(self) -> bool:
        """Hold it where it is, and return when it stands; false if this program may not."""
        if not self._send(signal.SIGSTOP):
            return False
        for _ in range(_TRIES):
            if self._stands():
                return True
            time.sleep(_PAUSE_S)
        return False

    def go_on(self) -> None:
        """Let it go on after :meth:`stop`."""
        self._send(signal.SIGCONT)

    def close(self) -> None:
        """Forget it."""
        os.close(self.fd)

    def _stands(self) -> bool:
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                letter = file.read().rpartition(b")")[2].split()[0]
        except OSError:  # it has ended
            return True
        return letter in _STANDING

    def _send(self, number: signal.Signals) -> bool:
        try:
            signal.pidfd_send_signal(self.fd, number)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return True


def take_back(lease: Lease, expected: int, rival: Rival | None) -> Owner:
    """Find out who owns the work, after it was offered to ``rival``; decide it for this program if that can be.

    Args:
        lease: This program's; it gave :data:`WORK` up.
        expected: The count at the offer.
        rival: The other program; None: nobody can be asked.

    Returns:
        ``"ours"``: this program goes on, the other one never will. ``"theirs"``: it went on, and this one never may.
        ``"unknown"``: it is about to decide, and can be neither waited for nor ended; ask again.
    """
    if _won(lease, expected):
        if rival is not None:
            rival.kill()  # it may hold locks that are needed now
        lease.lock(WORK)
        return "ours"
    if lease.count == expected and (rival is None or not rival.stop()):
        return "unknown"
    if lease.count != expected:
        if rival is not None:
            rival.go_on()
        return "theirs"
    if rival is not None:
        rival.kill()  # it stood between taking the decision and counting it: it never went on
    for _ in range(_TRIES):
        if _won(lease, expected):
            lease.lock(WORK)
            return "ours"
        time.sleep(_PAUSE_S)
    return "unknown"


def _won(lease: Lease, expected: int) -> bool:
    with contextlib.suppress(TakenOverError):
        lease.commit(expected)
        lease.unlock(DECISION)
        return True
    return False
