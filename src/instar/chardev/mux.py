"""A device shared by several front ends; Ctrl-A switches between them (``-serial mon:stdio``).

Ctrl-A then: ``c`` next front end, ``x`` end the program, ``b`` break, ``h`` help, Ctrl-A itself.
"""

from __future__ import annotations

from instar.chardev.base import Chardev
from instar.chardev.state import MAX_SHARES, MAX_UNSENT, MAX_WAITING, MuxState, ShareState
from instar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from instar.chardev.base import FdTable
    from instar.cpr.state import State
    from instar.loop import Loop

_ESCAPE: Final = 0x01  # Ctrl-A
_HELP: Final = (
    b"\r\nCtrl-a h    print this help\r\n"
    b"Ctrl-a x    exit\r\n"
    b"Ctrl-a b    send break\r\n"
    b"Ctrl-a c    switch between console and monitor\r\n"
    b"Ctrl-a Ctrl-a  send Ctrl-a\r\n"
)


class MuxShare(Chardev):
    """One front end's end of a mux."""

    __slots__ = ("_mux", "_waiting", "role")

    def __init__(self, mux: MuxChardev, role: str, loop: Loop) -> None:
        super().__init__(mux.id, loop)
        self._mux = mux
        self.role = role
        self._waiting: bytearray = bytearray()
        self.adopted = mux.adopted
        self.connected = mux.backend.connected

    @property
    def filename(self) -> str:
        """What ``query-chardev`` shows."""
        return self._mux.filename

    def write(self, data: bytes) -> None:
        """Send; the output of a monitor that is not in focus is held back until it is."""
        if self.role == "monitor" and not self.in_focus:
            room = MAX_UNSENT - len(self._out)
            self.lost += max(0, len(data) - room)
            self._out += data[:room]
        else:
            self._mux.backend.write(data)

    def pending(self) -> int:
        """Return how many bytes neither the host nor (for a monitor) the focus has taken."""
        return len(self._out) + self._mux.backend.pending()

    @property
    def in_focus(self) -> bool:
        """Whether input goes to this front end."""
        return self._mux.focused is self

    @property
    def broken(self) -> bool:
        """Whether the shared device's other end has gone."""
        return self._mux.backend.broken

    def accept_input(self) -> None:
        """Ask ``can_receive`` again."""
        self._mux.accept_input()

    def terminal_size(self) -> tuple[int, int]:
        """Return the backend's."""
        return self._mux.backend.terminal_size()

    def follow_size(self) -> None:
        """Let the backend find out."""
        self._mux.backend.follow_size()

    def give(self, byte: int) -> None:
        """Hand a byte of input to the front end, or keep it until there is room."""
        self._waiting.append(byte)
        self.give_waiting()

    def give_waiting(self) -> None:
        """Hand over as much of the waiting input as there is room for."""
        while self._waiting and (room := self._can_receive()) > 0:
            data = bytes(self._waiting[:room])
            del self._waiting[:room]
            self._receive(data)

    def room(self) -> int:
        """Return how many bytes of input this end takes now."""
        return MAX_WAITING - len(self._waiting)

    def tell(self, event: str) -> None:
        """Hand an event to the front end."""
        self._event(event)

    def release(self) -> None:
        """Send what was held back."""
        data = bytes(self._out)
        self._out.clear()
        self._mux.backend.write(data)

    def save_share(self) -> ShareState:
        """Return what waits at this end."""
        return ShareState(waiting=bytes(self._waiting), held=bytes(self._out))

    def load_share(self, state: ShareState) -> None:
        """Go on with what waited before an update."""
        self._waiting[:0] = state.waiting
        self._out[:0] = state.held


class MuxChardev(Chardev):
    """The shared device; monitors among its front ends get two more events: "focus" and "exit" (Ctrl-A x)."""

    __slots__ = ("_escaped", "_focus", "_loaded", "_shares", "backend")
    state_class: ClassVar[type[State]] = MuxState

    def __init__(self, backend: Chardev, loop: Loop) -> None:
        super().__init__(backend.id, loop)
        self.state_id = f"{backend.state_id}/mux"
        self.backend = backend
        self.adopted = backend.adopted
        self._shares: list[MuxShare] = []
        self._loaded: list[ShareState] = []  # of front ends that are made after load_state
        self._focus = 0
        self._escaped = False
        backend.attach(receive=self._on_input, can_receive=self._room, event=self._on_event)

    @property
    def filename(self) -> str:
        """What ``query-chardev`` shows: the backend's."""
        return self.backend.filename

    @property
    def focused(self) -> MuxShare | None:
        """The front end that gets the input."""
        return self._shares[self._focus % len(self._shares)] if self._shares else None

    def share(self, role: str) -> MuxShare:
        """Return a further front end's end; the first one has the focus."""
        if len(self._shares) == MAX_SHARES:
            raise ConfigError(
                f"chardev {self.id}: has {MAX_SHARES} front ends, which is the limit"
            )
        made = MuxShare(self, role, self._loop)
        if self._loaded:
            made.load_share(self._loaded.pop(0))
        self._shares.append(made)
        self.frontend_open = True
        return made

    def accept_input(self) -> None:
        """Hand on what waits, then ask the backend for more."""
        for share in tuple(self._shares):
            share.give_waiting()
        self.backend.accept_input()

    def parts(self) -> tuple[Chardev, ...]:
        """Return the backend and this."""
        return (self.backend, self)

    def pending(self) -> int:
        """Return the backend's."""
        return self.backend.pending()

    def write(self, data: bytes) -> None:
        """Send past all front ends."""
        self.backend.write(data)

    def disconnect(self) -> None:
        """Drop the backend's other end."""
        self.backend.disconnect()

    def resize(self, cols: int, rows: int) -> None:
        """Tell the backend, which tells all front ends."""
        self.backend.resize(cols, rows)

    def save_fds(self, fds: FdTable) -> None:
        """Name the backend's descriptors."""
        self.backend.save_fds(fds)

    def save_state(self) -> MuxState:
        """Return who has the focus and what waits."""
        shares = [s.save_share() for s in self._shares] + self._loaded
        return MuxState(focus=self._focus, escaped=self._escaped, shares=shares)

    def load_state(self, state: State) -> None:
        """Go on with the same focus; front ends may be made before or after."""
        assert isinstance(state, MuxState)
        self._focus = state.focus
        self._escaped = state.escaped
        self._loaded = list(state.shares)
        for share in self._shares[: len(self._loaded)]:
            share.load_share(self._loaded.pop(0))

    def close(self) -> None:
        """Close the backend."""
        super().close()
        self.backend.close()

    def _room(self) -> int:
        """Take input even if the front end in focus is busy: Ctrl-A c and x must always work.

        What is taken at once must fit wherever the focus goes meanwhile; a single byte always does.
        """
        share = self.focused
        if share is None:
            return 0
        return min(share.room(), *(max(1, other.room()) for other in self._shares))

    def _on_input(self, data: bytes) -> None:
        for byte in data:
            self._on_byte(byte)

    def _on_byte(self, byte: int) -> None:
        if self._escaped:
            self._escaped = False
            self._command(byte)
        elif byte == _ESCAPE:
            self._escaped = True
        elif self.focused is not None:
            self.focused.give(byte)

    def _command(self, byte: int) -> None:
        key = chr(byte).lower()
        if key == "c":
            self._switch()
        elif key == "x":
            self._exit()
        elif key in {"h", "?"}:
            self.backend.write(_HELP)
        elif key == "b" and self.focused is not None:
            self.focused.tell("break")
        elif byte == _ESCAPE and self.focused is not None:
            self.focused.give(byte)

    def _switch(self) -> None:
        if len(self._shares) < 2:
            return
        self._focus = (self._focus + 1) % len(self._shares)
        share = self._shares[self._focus]
        share.release()
        if share.role == "monitor":
            share.tell("focus")

    def _exit(self) -> None:
        """Let a monitor end the program; without one nobody can."""
        monitors = [share for share in self._shares if share.role == "monitor"]
        if monitors:
            self.backend.write(b"Instar: Terminated\r\n")
            monitors[0].tell("exit")

    def _on_event(self, event: str) -> None:
        for share in tuple(self._shares):
            share.connected = self.backend.connected
            share.tell(event)
