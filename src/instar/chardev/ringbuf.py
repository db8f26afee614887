"""``ringbuf``: the last output is kept in memory, to be read through a monitor."""

from __future__ import annotations

from instar.chardev.base import Chardev
from instar.chardev.state import MAX_RING, RingState
from instar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from instar.cpr.state import State
    from instar.loop import Loop

DEFAULT_SIZE: Final = 65536  # bytes


class RingChardev(Chardev):
    """A buffer that forgets its oldest bytes; nothing is lost by an update.

    Args:
        ident: Unique id.
        size: Bytes kept, a power of 2 up to 8 MiB.
        loop: The main loop.

    Raises:
        ConfigError: The size is not allowed.
    """

    __slots__ = ("_ring", "size")
    state_class: ClassVar[type[State]] = RingState

    def __init__(self, ident: str, size: int, loop: Loop) -> None:
        super().__init__(ident, loop)
        if not 0 < size <= MAX_RING or size.bit_count() != 1:
            raise ConfigError(
                f"chardev {ident}: size {size} is not allowed; a power of 2 up to {MAX_RING} is"
            )
        self.size = size
        self._ring = bytearray()

    @property
    def filename(self) -> str:
        """What ``query-chardev`` shows."""
        return "ringbuf"

    def write(self, data: bytes) -> None:
        """Keep ``data``; what is older than the last ``size`` bytes is forgotten."""
        self._ring += data[-self.size :]
        if (excess := len(self._ring) - self.size) > 0:
            del self._ring[:excess]

    def take(self, size: int) -> bytes:
        """Return the oldest bytes, at most ``size``, which are forgotten then."""
        data = bytes(self._ring[:size])
        del self._ring[:size]
        return data

    def save_state(self) -> RingState:
        """Return what is in the buffer."""
        return RingState(content=bytes(self._ring))

    def load_state(self, state: State) -> None:
        """Go on with what was in the buffer; its size may have changed."""
        assert isinstance(state, RingState)
        self._ring.clear()
        self.write(state.content)
