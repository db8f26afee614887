"""``stdio``: standard input and output, usually a terminal that a person sits at.

The terminal is in raw mode as long as the program runs, and across updates; :meth:`StdioChardev.close` restores it.

Descriptors 0 and 1 are usually shared with other programs (the shell, a pipeline), who would break if they became
non-blocking. So terminals and pipes are opened a second time through /proc; where that is impossible (a socket,
no /proc), the shared ones are made non-blocking and put back at exit.
"""

from __future__ import annotations

import os
import termios

from instar import signals
from instar.chardev.base import FD_OWNER, FdChardev
from instar.chardev.state import StdioState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Final

    from instar.chardev.base import FdTable
    from instar.cpr.state import State
    from instar.loop import Loop

    TtyAttributes = list[Any]  # as termios.tcgetattr: six numbers and the list of c_cc

_S_IFMT: Final = 0o170000
_S_IFREG: Final = 0o100000
_S_IFCHR: Final = 0o020000
_S_IFIFO: Final = 0o010000
RAW_INPUT: Final = (
    termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
    | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
)  # fmt: skip
RAW_LOCAL: Final = termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN


class StdioChardev(FdChardev):
    """Standard input and output; either may be closed.

    Args:
        ident: Unique id.
        loop: The main loop.
        fds: Descriptors of the program before; those of this id are used as they are.
        signal: Ctrl-C and Ctrl-Z of the terminal act on this program, not on the front end.
        inert: In a rehearsal: what the program before had no descriptor of is left alone.
    """

    __slots__ = ("_tty_before", "_unblocked")
    state_class: ClassVar[type[State]] = StdioState

    def __init__(
        self, ident: str, loop: Loop, fds: FdTable, *, signal: bool, inert: bool = False
    ) -> None:
        super().__init__(ident, loop)
        self._unblocked: list[int] = []
        self._tty_before: TtyAttributes | None = None
        self._in_fd = fds.take(self.state_id, 0)
        self._out_fd = fds.take(self.state_id, 1)
        self.adopted = self._in_fd >= 0 or self._out_fd >= 0
        if not self.adopted and not inert:
            self._in_fd = self._open(0, os.O_RDONLY)
            self._out_fd = self._open(1, os.O_WRONLY)
            self._make_raw(signal=signal)
        self.connected = self._in_fd >= 0

    @property
    def filename(self) -> str:
        """What ``query-chardev`` shows."""
        return "stdio"

    def save_fds(self, fds: FdTable) -> None:
        """Name the descriptors in use."""
        for index, fd in enumerate((self._in_fd, self._out_fd)):
            if fd >= 0:
                fds.resave(self.state_id, index, fd, owner=FD_OWNER)
            else:
                fds.delete(self.state_id, index)

    def save_state(self) -> StdioState:
        """Return the unsent output and what must be undone at exit."""
        modes, characters = _pack_tty(self._tty_before)
        return StdioState(
            unsent=bytes(self._out),
            tty_modes=modes,
            tty_characters=characters,
            unblocked=list(self._unblocked),
            output_gone=self._out_fd < 0,
        )

    def load_state(self, state: State) -> None:
        """Go on with the terminal as it is; remember how it was before we came."""
        assert isinstance(state, StdioState)
        self._unblocked = list(state.unblocked)
        if len(state.tty_modes) == 6:
            self._tty_before = _unpack_tty(state.tty_modes, state.tty_characters)
        if state.output_gone:
            self._out_fd = -1
        self._restore_unsent(state.unsent)

    def follow_size(self) -> None:
        """Look at the terminal's size, now and whenever the host says that it changed."""
        if self._in_fd >= 0 and os.isatty(self._in_fd):
            signals.on_window_change(lambda: self._loop.call_threadsafe(self._look_at_size))
            self._look_at_size()

    def close(self) -> None:
        """Put the terminal and shared descriptors back as they were."""
        super().close()
        self._flush_at_exit()
        tty_fd = self._in_fd if self._in_fd >= 0 else 0
        if self._tty_before is not None:
            try:  # noqa: SIM105 - contextlib is not on the resume path
                termios.tcsetattr(tty_fd, termios.TCSANOW, self._tty_before)
            except (OSError, termios.error):  # the terminal is gone: nothing to restore
                pass
            self._tty_before = None
        for fd in self._unblocked:
            os.set_blocking(fd, True)
        self._unblocked.clear()
        for fd in {self._in_fd, self._out_fd} - {-1, 0, 1}:
            os.close(fd)
        self._in_fd = self._out_fd = -1

    def _look_at_size(self) -> None:
        if (size := window_size(self._in_fd)) != (0, 0):
            self.resize(*size)

    def _open(self, fd: int, mode: int) -> int:
        """Return a descriptor that never blocks for standard stream ``fd``; -1 if it is closed."""
        try:
            kind = os.fstat(fd).st_mode & _S_IFMT
        except OSError:
            return -1
        if kind == _S_IFREG:  # never blocks, and a second opening would start at the beginning
            return fd
        if kind in (_S_IFCHR, _S_IFIFO):
            try:
                flags = mode | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                return os.open(f"/proc/self/fd/{fd}", flags)
            except OSError:  # no /proc, or a terminal of another user
                pass
        if os.get_blocking(fd):
            os.set_blocking(fd, False)
            self._unblocked.append(fd)
        return fd

    def _make_raw(self, *, signal: bool) -> None:
        if self._in_fd < 0 or not os.isatty(self._in_fd):
            return
        before = termios.tcgetattr(self._in_fd)
        self._tty_before = list(before)
        raw = list(before)
        raw[0] &= ~RAW_INPUT
        raw[1] |= termios.OPOST  # what others print on this terminal still starts at the left
        raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        raw[3] &= ~(RAW_LOCAL if signal else RAW_LOCAL | termios.ISIG)
        characters = list(before[6])
        characters[termios.VMIN], characters[termios.VTIME] = 1, 0
        raw[6] = characters
        termios.tcsetattr(self._in_fd, termios.TCSANOW, raw)


def window_size(fd: int) -> tuple[int, int]:
    """Return columns and rows of a terminal; (0, 0) if it has none set, or is gone."""
    try:
        rows, cols = termios.tcgetwinsize(fd)
    except (OSError, ValueError, termios.error):
        return 0, 0
    return cols, rows


def _pack_tty(before: TtyAttributes | None) -> tuple[list[int], bytes]:
    """Turn what termios returned into numbers and bytes."""
    if before is None:
        return [], b""
    modes = [int(m) for m in before[:6]]
    return modes, b"".join(c if isinstance(c, bytes) else bytes([c]) for c in before[6])


def _unpack_tty(modes: list[int], characters: bytes) -> TtyAttributes:
    return [*modes, [bytes([c]) for c in characters]]
