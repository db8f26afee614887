"""The machine's clocks: virtual time, which stops with the VM, and the wall clock that ``-rtc`` describes."""

from __future__ import annotations

from time import time_ns

from instar.cpr.state import State, i, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Protocol

    class VirtualTime(Protocol):
        """Where virtual time comes from (the core)."""

        def now_ns(self) -> int:
            """Return virtual time in nanoseconds."""
            ...


@state("clock", version=1)
class ClockState(State):
    """How the guest's wall clock stands to the clock it is derived from."""

    rtc_offset_ns: int = i(
        64, "Wall clock minus its source (host time, or virtual time).", unit="ns"
    )


class MachineClock:
    """Clocks for devices.

    Args:
        source: Virtual time.
        rtc_follows_vm: The wall clock follows virtual time (``-rtc clock=vm``) instead of the host's.
        rtc_base_ns: What the wall clock shows now, ns since the epoch; -1: the host's time (``-rtc base=utc``).
    """

    __slots__ = ("_follows_vm", "_source", "state")
    state_id = "clock"
    state_class: ClassVar[type[State]] = ClockState

    def __init__(
        self, source: VirtualTime, *, rtc_follows_vm: bool = False, rtc_base_ns: int = -1
    ) -> None:
        self._source = source
        self._follows_vm = rtc_follows_vm
        base = time_ns() if rtc_base_ns < 0 else rtc_base_ns
        self.state = ClockState(
            rtc_offset_ns=base - self._rtc_source_ns() if rtc_base_ns >= 0 or rtc_follows_vm else 0
        )

    def now_ns(self) -> int:
        """Return virtual time, ns; it stands still while the VM is stopped."""
        return self._source.now_ns()

    def rtc_ns(self) -> int:
        """Return the guest's wall clock, ns since the epoch."""
        return self._rtc_source_ns() + self.state.rtc_offset_ns

    def _rtc_source_ns(self) -> int:
        return self._source.now_ns() if self._follows_vm else time_ns()

    def save_state(self) -> ClockState:
        """Return the state to carry over an update."""
        return self.state

    def load_state(self, state: ClockState) -> None:
        """Go on with the wall clock of the program before."""
        self.state = state
