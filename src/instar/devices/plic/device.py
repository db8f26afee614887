"""A PLIC with 95 level-triggered sources, as QEMU's `virt` board has it.

Source: RISC-V PLIC 1.0.0 (ratified); sizes as SiFive's.
"""

from __future__ import annotations

from instar import log
from instar.cpr.errors import StateInvalidError
from instar.devices.plic.state import CONTEXTS, MAX_PRIORITY, SOURCES, WORDS, PlicState
from instar.errors import InternalBugError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar, Final

    from instar.cpr.state import State

REGION_SIZE: Final = 0x60_0000
_PENDING: Final = 0x1000
_ENABLE: Final = 0x2000
_ENABLE_STRIDE: Final = 0x80
_CONTEXT: Final = 0x20_0000
_CONTEXT_STRIDE: Final = 0x1000
_THRESHOLD: Final = 0
_CLAIM: Final = 4


class PlicLine:
    """The wire from one device to the controller."""

    __slots__ = ("plic", "source")

    def __init__(self, plic: Plic, source: int) -> None:
        self.plic = plic
        self.source = source

    def set(self, level: bool) -> None:  # noqa: FBT001 - the contract of an interrupt line
        """Drive the line; driving the same level again does nothing."""
        self.plic.drive(self.source, level=level)


class Plic:
    """Route device lines to harts, by priority.

    Args:
        contexts: Contexts wired to harts, 1 to 16; context 2*h is machine mode of hart h, 2*h+1 supervisor mode.
        set_hart_irq: Called as ``set_hart_irq(context, level)`` when a context's request changes or may have.
    """

    __slots__ = ("set_hart_irq", "state")
    state_id = "plic"
    state_class: ClassVar[type[State]] = PlicState

    def __init__(self, contexts: int, set_hart_irq: Callable[[int, bool], object]) -> None:
        if not 1 <= contexts <= CONTEXTS:
            raise InternalBugError(f"plic: {contexts} contexts, allowed 1 to {CONTEXTS}")
        self.set_hart_irq = set_hart_irq
        self.state = PlicState(contexts=contexts)

    def line(self, source: int) -> PlicLine:
        """Return the wire of ``source`` (1 to 95)."""
        if not 1 <= source < SOURCES:
            raise InternalBugError(f"plic: source {source}, allowed 1 to {SOURCES - 1}")
        return PlicLine(self, source)

    def drive(self, source: int, *, level: bool) -> None:
        """Take a device's level: its rise makes a request unless one of this source is on its way."""
        state = self.state
        word, bit = source >> 5, 1 << (source & 31)
        if bool(state.level[word] & bit) == level:
            return
        state.level[word] ^= bit
        if level and not state.claimed[word] & bit:
            state.pending[word] |= bit
            self._update()

    def reset(self) -> None:
        """Forget all settings, requests and lines; devices are reset after it and drive theirs again."""
        self.state = PlicState(contexts=self.state.contexts)
        self._update()

    def save_state(self) -> PlicState:
        """Return the live state."""
        return self.state

    def check_against(self, state: PlicState) -> None:
        """Refuse the state of a machine with another number of harts (StateInvalidError)."""
        if state.contexts != self.state.contexts:
            raise StateInvalidError(
                f"plic.contexts: {state.contexts}, this machine has {self.state.contexts}"
            )

    def load_state(self, state: PlicState) -> None:
        """Go on from ``state``."""
        self.state = state

    def post_load(self) -> None:
        """Tell every hart its level."""
        self._update()

    def mmio_read(self, offset: int, size: int) -> int:
        """Read a register; what does not exist reads 0."""
        if size != 4 or offset & 3:
            log.guest("plic", f"read of {size} bytes at {offset:#x}, only aligned words exist")
            return 0
        state = self.state
        if offset >= _CONTEXT:
            return self._read_context(offset)
        if offset >= _ENABLE:
            index = self._enable_index(offset)
            return 0 if index is None else state.enable[index]
        if offset >= _PENDING:
            word = (offset - _PENDING) >> 2
            return state.pending[word] if word < WORDS else 0
        return state.priority[offset >> 2] if offset >> 2 < SOURCES else 0

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """Write a register; what does not exist ignores it."""
        if size != 4 or offset & 3:
            log.guest("plic", f"write of {size} bytes at {offset:#x}, only aligned words exist")
            return
        value &= 0xFFFF_FFFF
        if offset < _PENDING:
            source = offset >> 2
            if 0 < source < SOURCES:
                self.state.priority[source] = value & MAX_PRIORITY
                self._update()
        elif offset >= _CONTEXT:
            self._write_context(offset, value)
        elif offset >= _ENABLE:
            index = self._enable_index(offset)
            if index is not None:
                first = index % WORDS == 0  # source 0 is hard-wired to zero
                self.state.enable[index] = value & (0xFFFF_FFFE if first else 0xFFFF_FFFF)
                self._update()

    def _enable_index(self, offset: int) -> int | None:
        context, byte = divmod(offset - _ENABLE, _ENABLE_STRIDE)
        if context >= self.state.contexts or byte >> 2 >= WORDS:
            return None
        return context * WORDS + (byte >> 2)

    def _read_context(self, offset: int) -> int:
        context, register = divmod(offset - _CONTEXT, _CONTEXT_STRIDE)
        if context >= self.state.contexts:
            return 0
        if register == _THRESHOLD:
            return self.state.threshold[context]
        return self._claim(context) if register == _CLAIM else 0

    def _write_context(self, offset: int, value: int) -> None:
        context, register = divmod(offset - _CONTEXT, _CONTEXT_STRIDE)
        if context >= self.state.contexts:
            return
        if register == _THRESHOLD:
            self.state.threshold[context] = value & MAX_PRIORITY
            self._update()
        elif register == _CLAIM:
            self._complete(context, value)

    def _best(self, context: int) -> tuple[int, int]:
        """Return (priority, source) of the request to serve first; (0, 0) if there is none."""
        state = self.state
        best, winner = 0, 0
        enable, priority = state.enable, state.priority
        for word, pending in enumerate(state.pending):
            bits = pending and pending & enable[context * WORDS + word]
            while bits:
                source = (word << 5) + (bits & -bits).bit_length() - 1
                if priority[source] > best:  # equal priorities: the lowest number wins
                    best, winner = priority[source], source
                bits &= bits - 1
        return best, winner

    def _claim(self, context: int) -> int:
        _, source = self._best(context)  # the threshold does not affect a claim (PLIC 1.0.0, 8)
        if source:
            word, bit = source >> 5, 1 << (source & 31)
            self.state.pending[word] &= ~bit
            self.state.claimed[word] |= bit
            self._update()
        return source

    def _complete(self, context: int, source: int) -> None:
        state = self.state
        word, bit = source >> 5, 1 << (source & 31)
        if not 0 < source < SOURCES or not state.enable[context * WORDS + word] & bit:
            return  # silently ignored (PLIC 1.0.0, 9)
        if not state.claimed[word] & bit:
            return
        state.claimed[word] &= ~bit
        if state.level[word] & bit:  # still asserted: the gateway makes a new request
            state.pending[word] |= bit
        self._update()

    def _update(self) -> None:
        state = self.state
        some = any(state.pending)
        for context in range(state.contexts):
            self.set_hart_irq(context, some and self._best(context)[0] > state.threshold[context])
