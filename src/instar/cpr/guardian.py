"""The guardian: a small program beside an update that starts the old program again if the new one is lost.

It is executed by path with nothing but the standard library, so that it works when the package is what is broken.
``guardian.py SOCKET PID``: a SOCK_SEQPACKET and the process to watch, its parent.

Words to it: ``fds N...`` with descriptors, which the old program had under the numbers N; ``drop N...``: it has closed
those; ``arm JSON`` with the rest of what it needs; ``wait`` (a person decides: no time limit any more); ``again`` (the
old program has begun in the same process: its time starts); ``off`` (nothing to guard). From it: ``ready``.

Exit status: 0 there was nothing to do; 1 the old program could not be started. Otherwise it becomes the old program.

Source: own.
"""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

GROUP: Final = 200  # descriptors a message; the kernel's limit is 253
_MESSAGE: Final = 1 << 20  # bytes
_HELD: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FLOCK: Final = struct.Struct("hhqqi4x")
_COUNT: Final = struct.Struct("<Q")
_COUNT_AT: Final = 8
_WORK: Final = 0
_DECISION: Final = 1
_LOOK_AGAIN_MS: Final = 50
_FIRST_FREE: Final = 3  # where standard streams are closed


class Guardian:
    """What it knows so far."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self.sock = sock
        self.pid = pid
        self.process = os.pidfd_open(pid)
        self.fds: dict[int, int] = {}  # the old program's number -> ours
        self.order: dict[str, object] = {}  # of the word arm
        self.lease = self.shared = -1
        self.deadline_ns = -1

    def run(self) -> None:
        """Wait until there is nothing to do, or the old program has to be started (does not return)."""
        while True:
            poll = select.poll()
            poll.register(self.process, select.POLLIN)
            if self.sock.fileno() >= 0:
                poll.register(self.sock, select.POLLIN)
            ready = {fd for fd, _ in poll.poll(self._left_ms())}
            if self.sock.fileno() in ready and self._listen():
                return
            if self.process in ready:
                self._after_death()
                return
            if self._left_ms() == 0 and self._end_the_process():
                self._after_death()
                return

    def _left_ms(self) -> int | None:
        if self.deadline_ns < 0:
            return None
        return max(0, -((time.monotonic_ns() - self.deadline_ns) // 1_000_000))

    def _listen(self) -> bool:
        """Take one word; true if it was the last."""
        room = socket.CMSG_SPACE(GROUP * array.array("i").itemsize)
        try:
            data, ancillary, _, _ = self.sock.recvmsg(_MESSAGE, room, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            data, ancillary = b"", []
        word, _, rest = data.decode().partition(" ")
        if word == "fds":
            got = array.array("i")
            for _, _, raw in ancillary:
                got.frombytes(raw[: len(raw) - len(raw) % got.itemsize])
            self._drop(rest)
            self.fds.update(zip((int(n) for n in rest.split()), got, strict=True))
        elif word == "drop":
            self._drop(rest)
        elif word == "arm":
            self._arm(json.loads(rest))
        elif word == "wait":
            self.deadline_ns = -1
        elif word == "again":
            self._set_deadline()
        elif word == "off" or (not word and not self.order):
            return True
        elif not word:  # both programs have closed it: only the process tells more
            self.sock.close()
        return False

    def _drop(self, numbers: str) -> None:
        for number in numbers.split():
            fd = self.fds.pop(int(number), -1)
            if fd >= 0:
                os.close(fd)

    def _arm(self, order: dict[str, object]) -> None:
        self.order = order
        # Opened anew: a contender for the lease. The one that came would keep the old program's lock when that dies.
        self.shared = self.fds[_int(order["lease"])]
        self.lease = os.open(f"/proc/self/fd/{self.shared}", os.O_RDWR)
        self.fds[_int(order["lease"])] = self.lease
        self._set_deadline()

    def _set_deadline(self) -> None:
        self.deadline_ns = time.monotonic_ns() + _int(self.order["limit-ms"]) * 1_000_000

    def _end_the_process(self) -> bool:
        """Decide that the new program is lost, and end it; false if it has committed."""
        self.deadline_ns = -1
        if not self._lock(_DECISION):
            return False
        if self._count() != self.order["count"]:  # it has gone on, and settled
            self._set_lock(_DECISION, fcntl.F_UNLCK)
            return False
        signal.pidfd_send_signal(self.process, signal.SIGKILL)
        poll = select.poll()
        poll.register(self.process, select.POLLIN)
        poll.poll()
        self.order["reason"] = (
            f"the new program did not go on within {self.order['limit-ms']} ms and was ended"
        )
        return True

    def _after_death(self) -> None:
        """Start the old program, unless the update was over or not yet begun."""
        if self.sock.fileno() >= 0:
            self.sock.settimeout(0)
            if self._last_words():
                return
        # Whoever holds the decision goes on at once, which the count tells, or dies: there is no reason to give up.
        while self.order and self._count() == self.order["count"]:
            if self._lock(_DECISION) and self._count() == self.order["count"]:
                self._take_work()
                self._become_the_old_program()
            time.sleep(_LOOK_AGAIN_MS / 1000)

    def _take_work(self) -> None:
        """Take the work from the dead program's open file, which something that it started may have, too.

        With the decision ours nobody who has it can go on with the guest.
        """
        self._set_lock(_WORK, fcntl.F_UNLCK, self.shared)
        self._lock(_WORK)
        os.close(self.shared)

    def _last_words(self) -> bool:
        """Take what was still said; true if there was nothing to guard any more."""
        try:
            while self.sock.fileno() >= 0:
                if self._listen():
                    return True
        except BlockingIOError:
            return False
        return False

    def _become_the_old_program(self) -> NoReturn:
        order = self.order
        reason = str(order.get("reason", "the new program ended before it went on"))
        say(f"{reason}; the old program is started again as process {os.getpid()}")
        self.sock.close()  # inherited, so the old program would keep it for good
        place(self.fds)
        environ = {**os.environ, **_texts(order["environ"]), str(order["failed"]): reason}
        argv = order["argv"]
        if not isinstance(argv, list):
            raise TypeError("argv is not a list")
        words: list[str] = argv  # pyright: ignore[reportUnknownVariableType]
        os.execve(_int(order["program"]), words, environ)  # noqa: S606 - no shell

    def _count(self) -> int:
        data = os.pread(self.lease, _COUNT.size, _COUNT_AT)
        return int(_COUNT.unpack(data)[0])

    def _lock(self, byte: int) -> bool:
        return self._set_lock(byte, fcntl.F_WRLCK)

    def _set_lock(self, byte: int, kind: int, fd: int = -1) -> bool:
        lock = _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)
        try:
            fcntl.fcntl(self.lease if fd < 0 else fd, fcntl.F_OFD_SETLK, lock)
        except OSError as exc:
            if exc.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True


def place(fds: dict[int, int]) -> None:
    """Give every descriptor the number that it had, inheritable; what had these numbers before is gone.

    One more number is in use at most, for the process may not have more.
    """
    wanted = dict(fds)  # number -> where it is now
    holders = {fd: number for number, fd in wanted.items()}
    free = [number for number in wanted if number not in holders]
    while wanted:
        if not free:  # circles are left: open one of them
            number, fd = next(iter(wanted.items()))
            if number == fd:
                os.set_inheritable(fd, True)  # noqa: FBT003 - as os has it
                del wanted[number], holders[fd]
                continue
            del holders[fd]
            wanted[number] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
            holders[wanted[number]] = number
            os.close(fd)
            free.append(fd)
        number = free.pop()
        fd = wanted.pop(number, -1)
        if fd < 0:
            continue
        os.dup2(fd, number, inheritable=True)
        os.close(fd)
        del holders[fd]
        free.append(fd)  # whose number it was, if anybody's, can have it now


def say(text: str) -> None:
    """Tell people, if somebody listens."""
    try:
        os.write(2, f"instar guardian: {text}\n".encode())
    except OSError:
        return


def _int(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a number")
    return value


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise TypeError("environ is not a record")
    texts: dict[str, str] = value  # pyright: ignore[reportUnknownVariableType]
    return texts


def main() -> int:
    """Guard one update."""
    # The signals that end a program are for the one that owns the work; they are let through by the old program.
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    sock = socket.socket(fileno=int(sys.argv[1]))
    guardian = Guardian(sock, int(sys.argv[2]))
    if os.getppid() != guardian.pid:
        return 0
    try:
        sock.send(b"ready")
    except OSError:  # the update is off already
        return 0
    try:
        guardian.run()
    except Exception as exc:
        say(f"the old program could not be started again: {exc!r}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
