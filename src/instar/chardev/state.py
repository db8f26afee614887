"""What of a character device must cross an update beside its descriptors."""

from __future__ import annotations

from instar.cpr.state import State, blob, flag, state, subs, u, us

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MAX_UNSENT: Final = 8 << 20  # bytes; front ends stop writing long before (see Chardev.pending)
MAX_TTY_CHARS: Final = 64  # c_cc has 32 on Linux
MAX_WAITING: Final = 4096  # bytes; more than a person types while a guest is paused
MAX_SHARES: Final = 8
MAX_RING: Final = 8 << 20  # bytes


@state("chardev", version=1)
class ChardevState(State):
    """A device that has nothing but output (file, null)."""

    unsent: bytes = blob("Written by the front end, not yet taken by the host.", max=MAX_UNSENT)
    cols: int = u(16, "Columns of the terminal at the other end; 0: not known.")
    rows: int = u(16, "Rows of the terminal at the other end; 0: not known.")


@state("chardev-socket", version=1)
class SocketState(State):
    """A unix socket: listener and connection are descriptors, the rest is here."""

    unsent: bytes = blob("Written by the front end, not yet taken by the client.", max=MAX_UNSENT)
    connected: bool = flag("A client is connected (its descriptor travels by name).")
    gifts: int = u(8, "Descriptors received from the client that nobody has claimed yet.")
    path_device: int = u(64, "st_dev of the socket file we made, so that only that is removed.")
    path_inode: int = u(64, "st_ino of the socket file we made; 0 if we made none.")
    cols: int = u(16, "Columns of the client's terminal; 0: not known.")
    rows: int = u(16, "Rows of the client's terminal; 0: not known.")


@state("chardev-stdio", version=1)
class StdioState(State):
    """Standard input and output."""

    unsent: bytes = blob("Written by the front end, not yet taken by the host.", max=MAX_UNSENT)
    tty_modes: list[int] = us(
        32, "Terminal before we changed it: c_iflag, c_oflag, c_cflag, c_lflag, speeds.", max=6
    )
    tty_characters: bytes = blob("Terminal before we changed it: c_cc.", max=MAX_TTY_CHARS)
    unblocked: list[int] = us(32, "Descriptors that we made non-blocking (undone at exit).", max=2)
    output_gone: bool = flag("The reader of the output has gone; output is discarded.")


@state("chardev-share", version=1)
class ShareState(State):
    """One front end's end of a shared device."""

    waiting: bytes = blob("Input that the front end has no room for yet.", max=MAX_WAITING)
    held: bytes = blob("Output of a monitor that is not in focus.", max=MAX_UNSENT)


@state("chardev-mux", version=1)
class MuxState(State):
    """A device shared by several front ends."""

    focus: int = u(8, "Index of the front end that gets the input.")
    escaped: bool = flag("Ctrl-A was typed; the next byte is a command.")
    shares: list[ShareState] = subs(ShareState, "The front ends, in order.", max=MAX_SHARES)


@state("chardev-ringbuf", version=1)
class RingState(State):
    """Output kept in memory."""

    content: bytes = blob("The last output that nobody has read.", max=MAX_RING)
