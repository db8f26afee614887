"""What every character device has: one front end, output that waits, input by demand.

Source: own; the front end's side follows QEMU's character devices.
"""

from __future__ import annotations

import os
import select
from time import monotonic_ns

from instar.chardev.state import MAX_UNSENT, ChardevState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import ClassVar, Final, Protocol

    from instar.cpr.fds import Entry
    from instar.cpr.state import State
    from instar.loop import Loop

    class FdTable(Protocol):
        """What is needed of the table of named descriptors (``instar.cpr.fds.Fds``)."""

        def take(self, name: str, ident: int, /) -> int:
            """Hand out the descriptor and forget its name; -1 if there is none."""
            ...

        def resave(self, name: str, ident: int, fd: int, /, *, owner: str) -> None:
            """Keep ``fd`` under this name, replacing an earlier one."""
            ...

        def delete(self, name: str, ident: int, /) -> object:
            """Forget the name; the descriptor is not closed. Not there is fine."""
            ...

        def walk(self, owner: str = "", /) -> Iterator[Entry]:
            """Yield the entries of an owner."""
            ...


FD_OWNER: Final = "chardev"
_EXIT_NS: Final = (
    1_000_000_000  # how long the program's end waits for slow readers of its last output
)
READ_SIZE: Final = 65536  # bytes taken from the host at once


def _nothing(_data: bytes) -> None:
    """Take input when no front end is attached (none is asked for then)."""


def _no_room() -> int:
    return 0


def _no_event(_name: str) -> None:
    """Hear events when no front end is attached."""


class Chardev:
    """A byte stream in both directions between a front end (UART, monitor) and the host.

    Args:
        ident: Unique id; ``state_id`` and the names of descriptors are ``chardev/<id>``.
        loop: The main loop; everything happens in its thread.

    Attributes:
        connected: Somebody is at the other end. Without that, output is discarded.
        adopted: The other end was there before the update: no "opened" is due for it.
        lost: Bytes discarded because more than 8 MiB were unsent; front ends that heed :meth:`pending` never get there.
    """

    __slots__ = (
        "_can_receive", "_event", "_loop", "_out", "_receive", "_size", "adopted", "connected", "frontend_open", "id",
        "lost", "state_id",
    )  # fmt: skip
    state_class: ClassVar[type[State]] = ChardevState

    def __init__(self, ident: str, loop: Loop) -> None:
        self.id = ident
        self.state_id = f"chardev/{ident}"
        self.frontend_open = False
        self.connected = True
        self.adopted = False
        self.lost = 0
        self._loop = loop
        self._out: bytearray = bytearray()
        self._size = (0, 0)
        self._receive: Callable[[bytes], object] = _nothing
        self._can_receive: Callable[[], int] = _no_room
        self._event: Callable[[str], object] = _no_event

    @property
    def filename(self) -> str:
        """What ``query-chardev`` shows."""
        return "null"

    def attach(
        self,
        *,
        receive: Callable[[bytes], object],
        can_receive: Callable[[], int],
        event: Callable[[str], object],
    ) -> None:
        """Connect the front end; there is one at a time.

        Args:
            receive: Gets input, at most as many bytes as ``can_receive`` said.
            can_receive: Bytes the front end has room for now. After 0, :meth:`accept_input` asks again.
            event: Gets "opened", "closed" (the other end), "drained" (all output was taken), "break", "resized".
                A connection that exists already is announced by ``connected`` alone.
        """
        self._receive, self._can_receive, self._event = receive, can_receive, event
        self.frontend_open = True
        self.accept_input()

    def detach(self) -> None:
        """Take the front end away; input waits at the host."""
        self._receive, self._can_receive, self._event = _nothing, _no_room, _no_event
        self.frontend_open = False
        self.accept_input()

    def write(self, data: bytes) -> None:
        """Send ``data``; never blocks. What the host does not take now is kept and sent when it can."""

    def pending(self) -> int:
        """Return how many bytes are kept; event "drained" tells when there are none again."""
        return len(self._out)

    @property
    def broken(self) -> bool:
        """Whether the other end has gone, although its input may not be at its end."""
        return False

    def accept_input(self) -> None:
        """Ask ``can_receive`` again: the front end has room."""

    def disconnect(self) -> None:
        """Drop the other end and what it has not taken; a listening socket accepts the next one."""
        self._out.clear()

    def take_gift(self) -> int:
        """Return the oldest descriptor that came with the input (the caller owns it), or -1."""
        return -1

    def terminal_size(self) -> tuple[int, int]:
        """Return columns and rows of the terminal at the other end, (0, 0) if that is not known."""
        return self._size

    def follow_size(self) -> None:
        """Begin to find out the size where the host can tell it; event "resized" tells of each change."""

    def resize(self, cols: int, rows: int) -> None:
        """Learn that the terminal at the other end has this size now (each 0 to 65535)."""
        if (cols, rows) != self._size:
            self._size = (cols, rows)
            self._event("resized")

    def share(self, _role: str) -> Chardev:
        """Return what a front end attaches to: the device itself, unless several share it."""
        return self

    def parts(self) -> tuple[Chardev, ...]:
        """Return the devices with state that this one consists of, in load order."""
        return (self,)

    def save_fds(self, fds: FdTable) -> None:
        """Name every descriptor that must cross, and forget the names of those that are gone."""

    def save_state(self) -> State:
        """Return what else must cross; changes nothing."""
        cols, rows = self._size
        return ChardevState(unsent=bytes(self._out), cols=cols, rows=rows)

    def load_state(self, state: State) -> None:
        """Go on as the device of the program before."""
        assert isinstance(state, ChardevState)
        self._restore_unsent(state.unsent)
        self._restore_size(state.cols, state.rows)

    def update_blocker(self) -> str:
        """Return in a sentence why an update would lose something now; empty if it would not."""
        return ""

    def begin_update(self) -> None:
        """Hear that an update begins: what would block it must not come up any more."""

    def leave(self) -> None:
        """End in order what cannot cross; ``exec`` is next."""

    def end_update(self) -> None:
        """Hear that the update failed: this program goes on."""

    def close(self) -> None:
        """Undo what was done to the host (terminal modes, socket file) and close; at exit only."""
        self.detach()

    def _restore_unsent(self, unsent: bytes) -> None:
        self._out[:0] = unsent

    def _restore_size(self, cols: int, rows: int) -> None:
        """Go on with the size of before, unless the host has told by now."""
        if self._size == (0, 0):
            self._size = (cols, rows)


class FdChardev(Chardev):
    """A device over descriptors; subclasses say how to open and what end of file means."""

    __slots__ = ("_in_fd", "_out_fd", "_watched_in", "_watched_out")

    def __init__(self, ident: str, loop: Loop) -> None:
        super().__init__(ident, loop)
        self._in_fd = -1
        self._out_fd = -1
        self._watched_in = -1
        self._watched_out = -1

    def write(self, data: bytes) -> None:
        """Send ``data``; never blocks. Discarded if there is nobody to take it."""
        if self._out_fd < 0 or not data:
            return
        sent = 0 if self._out else self._try_send(data)
        if sent < len(data) and self._out_fd >= 0:
            self._keep(data[sent:])
            self._rewatch()

    def accept_input(self) -> None:
        """Ask ``can_receive`` again: the front end has room."""
        self._rewatch()

    def _flush_at_exit(self) -> None:
        """Give the host a last chance to take what it has not, for a limited time; then forget it."""
        deadline = monotonic_ns() + _EXIT_NS
        poller = select.poll()
        if self._out and self._out_fd >= 0:
            poller.register(self._out_fd, select.POLLOUT)
        while self._out and (left := deadline - monotonic_ns()) > 0:
            if not poller.poll(left / 1e6):
                break
            del self._out[: self._try_send(self._out)]
        self._out.clear()
        self._rewatch()

    def _restore_unsent(self, unsent: bytes) -> None:
        super()._restore_unsent(unsent)
        self._rewatch()

    def _keep(self, data: bytes) -> None:
        room = MAX_UNSENT - len(self._out)
        self.lost += max(0, len(data) - room)
        self._out += data[:room]

    def _rewatch(self) -> None:
        """Watch what is of use now: input if there is room for it, output if there is some."""
        fd_in = self._in_fd if self._in_fd >= 0 and self._can_receive() > 0 else -1
        fd_out = self._out_fd if self._has_output() else -1
        if (fd_in, fd_out) == (self._watched_in, self._watched_out):
            return
        for old in {self._watched_in, self._watched_out} - {fd_in, fd_out, -1}:
            self._loop.unwatch(old)
        self._watched_in, self._watched_out = fd_in, fd_out
        for fd in {fd_in, fd_out} - {-1}:
            self._loop.watch(
                fd,
                readable=self._on_readable if fd == fd_in else None,
                writable=self._on_writable if fd == fd_out else None,
            )

    def _has_output(self) -> bool:
        """Whether something waits until the host takes more."""
        return bool(self._out)

    def _on_readable(self) -> None:
        room = self._can_receive()
        if room > 0:
            try:
                data = self._read(min(room, READ_SIZE))
            except BlockingIOError:
                return
            except OSError:  # a terminal that hung up (EIO), a connection that was reset
                data = b""
            if data:
                self._receive(data)
            else:
                self._end_of_input()
        self._rewatch()

    def _on_writable(self) -> None:
        sent = self._try_send(self._out)
        del self._out[:sent]
        self._rewatch()
        if not self._out:
            self._event("drained")

    def _try_send(self, data: bytes | bytearray) -> int:
        """Return how many bytes the host took."""
        try:
            return self._send(data)
        except BlockingIOError:
            return 0
        except OSError as e:
            return self._output_failed(e, len(data))

    def _read(self, size: int) -> bytes:
        return os.read(self._in_fd, size)

    def _send(self, data: bytes | bytearray) -> int:
        return os.write(self._out_fd, data)

    def _end_of_input(self) -> None:
        """Handle that no input will come any more."""
        self._in_fd = -1
        self.connected = False
        self._event("closed")

    def _output_failed(self, error: OSError, length: int) -> int:
        """Handle that the host takes no more; return how many of ``length`` bytes to forget."""
        del error  # whatever it was, nobody is there to take the rest
        self._out_fd = -1
        self._out.clear()
        return length
