"""``pty``: a terminal that a person or program opens by its name, ``/dev/pts/N``; an update keeps the name.

Nobody may have it open: output is discarded then, as on a serial line without a cable, and the guest never waits.
The kernel does not say when somebody opens it, nor when they resize it, so that is looked for a few times a second, and
the former at every write.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import termios

from instar.chardev.base import FD_OWNER, FdChardev
from instar.chardev.stdio import RAW_INPUT, RAW_LOCAL, window_size
from instar.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.chardev.base import FdTable
    from instar.cpr.state import State
    from instar.loop import Loop

_TIOCGPTN: Final = 0x80045430  # ioctl_tty(2): number of the other end
_LOOK_NS: Final = 100_000_000  # how often to look whether somebody opened it


class PtyChardev(FdChardev):
    """Our end of a pseudo terminal in raw mode.

    Args:
        ident: Unique id.
        loop: The main loop.
        fds: Descriptors of the program before; that of this id is used as it is.

    Raises:
        HostError: The host has no more terminals; nothing was created.
    """

    __slots__ = ("_looking", "_master", "_number", "_window")

    def __init__(self, ident: str, loop: Loop, fds: FdTable) -> None:
        super().__init__(ident, loop)
        self._looking = False
        self._window = (0, 0)
        self._master = fds.take(self.state_id, 0)
        self.adopted = self._master >= 0
        if not self.adopted:
            self._master = _open_raw(ident)
        answer = fcntl.ioctl(self._master, _TIOCGPTN, bytes(4))
        self._number = int.from_bytes(answer, "little")
        self.connected = False
        if not self._find_peer():
            self._look_later()

    @property
    def path(self) -> str:
        """What to open."""
        return f"/dev/pts/{self._number}"

    @property
    def filename(self) -> str:
        """What ``query-chardev`` shows."""
        return f"pty:{self.path}"

    def write(self, data: bytes) -> None:
        """Send ``data``; never blocks. Discarded if nobody has the terminal open."""
        if self.connected or self._find_peer():
            super().write(data)

    def follow_size(self) -> None:
        """Look at the size that whoever has the terminal open gave it, a few times a second."""
        if self._master < 0:
            return
        window = window_size(self._master)
        if window not in {self._window, (0, 0)}:
            self._window = window
            self.resize(*window)
        self._loop.call_later(_LOOK_NS, self.follow_size)

    def disconnect(self) -> None:
        """Forget what was not taken; whoever has the terminal open keeps it."""
        super().disconnect()
        self._rewatch()

    def save_fds(self, fds: FdTable) -> None:
        """Name our end."""
        fds.resave(self.state_id, 0, self._master, owner=FD_OWNER)

    def load_state(self, state: State) -> None:
        """Go on; who had the terminal open at the stop gets the rest."""
        super().load_state(state)
        if not self.connected:
            self._out.clear()

    def close(self) -> None:
        """Close our end: the terminal is gone."""
        super().close()
        self._flush_at_exit()
        self._hang_up()
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def _events(self) -> int:
        """Return what ``poll`` says about our end."""
        if self._master < 0:
            return select.POLLHUP
        poller = select.poll()
        poller.register(self._master, select.POLLIN)
        ready = poller.poll(0)
        return ready[0][1] if ready else 0

    def _find_peer(self) -> bool:
        """Begin to serve if somebody has the terminal open, or left input in it."""
        events = self._events()
        if events & select.POLLHUP and not events & select.POLLIN:
            return False
        self._in_fd = self._out_fd = self._master
        self.connected = True
        self._event("opened")
        self._rewatch()
        return True

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            self._loop.call_later(_LOOK_NS, self._look)

    def _look(self) -> None:
        self._looking = False
        if self._master >= 0 and not self.connected and not self._find_peer():
            self._look_later()

    def _on_writable(self) -> None:
        if self._events() & select.POLLHUP:  # a full terminal that nobody has open is always ready
            self._end_of_input()
        else:
            super()._on_writable()

    def _send(self, data: bytes | bytearray) -> int:
        sent = super()._send(data)
        if not sent and data:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return sent

    def _end_of_input(self) -> None:
        """Wait for the next one who opens it."""
        self._hang_up()
        self._event("closed")
        self._look_later()

    def _output_failed(self, error: OSError, length: int) -> int:
        del error
        self._loop.call_later(0, self._look_again)
        return length

    def _look_again(self) -> None:
        if self.connected and self._events() & select.POLLHUP:
            self._end_of_input()

    def _hang_up(self) -> None:
        self._in_fd = self._out_fd = -1
        self._out.clear()
        self.connected = self.adopted = False
        self._rewatch()


def _open_raw(ident: str) -> int:
    """Return our end of a new terminal without echo and line editing."""
    try:
        master, slave = os.openpty()
    except OSError as e:
        raise HostError(f"chardev {ident}: cannot make a terminal: {e.strerror}") from e
    modes = termios.tcgetattr(slave)
    modes[0] &= ~RAW_INPUT
    modes[1] &= ~termios.OPOST
    modes[2] = modes[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    modes[3] &= ~(RAW_LOCAL | termios.ISIG)
    modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0
    termios.tcsetattr(slave, termios.TCSANOW, modes)
    os.close(slave)  # the modes stay with the terminal
    os.set_blocking(master, False)
    return master
