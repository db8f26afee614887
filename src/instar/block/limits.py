"""What a disk may do in a second: the limits of ``throttling.*``, and which of them go together.

Source: own; names, meaning and ranges follow QEMU's docs/throttle.txt.
"""

from __future__ import annotations

from instar.units import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# The order of all tables here and in the state. A total is for reads and writes together.
NAMES: Final = ("bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write")
FIRST_IOPS: Final = 3
MAX_VALUE: Final = 10**15  # bytes or requests, of a rate as of a burst
MAX_GROUP_NAME: Final = 127  # bytes, as of all names
_NONE: Final = (0,) * len(NAMES)
_SECOND: Final = (1,) * len(NAMES)
_NS: Final = 1_000_000_000
_DEFAULT_ROOM_NS: Final = 100_000_000  # without a burst: else every other request would wait


class Limits:
    """Six limits, in the order of ``NAMES``; 0 is none.

    Attributes:
        rates: Bytes or requests a second, in the long run.
        peaks: Bytes or requests a second in a burst, 0: there are no bursts.
        seconds: How long a burst lasts at its peak.
        iops_size: A request of more bytes than this counts as several; 0: never.
    """

    __slots__ = ("iops_size", "peaks", "rates", "seconds")

    def __init__(
        self,
        rates: tuple[int, ...] = _NONE,
        peaks: tuple[int, ...] = _NONE,
        seconds: tuple[int, ...] = _SECOND,
        *,
        iops_size: int = 0,
    ) -> None:
        self.rates = rates
        self.peaks = peaks
        self.seconds = seconds
        self.iops_size = iops_size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Limits) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        return f"Limits{self._values()!r}"

    def _values(self) -> tuple[object, ...]:
        return (self.rates, self.peaks, self.seconds, self.iops_size)

    @property
    def limiting(self) -> bool:
        """Whether there is any limit."""
        return any(self.rates)

    def room_ns(self, which: int) -> int:
        """Return how far requests may be ahead of the rate ``which``, in ns of work at that rate."""
        burst = self.peaks[which] * self.seconds[which]
        return burst * _NS // self.rates[which] if burst else _DEFAULT_ROOM_NS

    def problem(self) -> str:
        """Return why these limits are impossible, "" if they are fine."""
        for values, suffix in ((self.rates, ""), (self.peaks, "-max")):
            for total in (0, FIRST_IOPS):
                if values[total] and (values[total + 1] or values[total + 2]):
                    name, parts = NAMES[total], (NAMES[total + 1], NAMES[total + 2])
                    return (
                        f"{name}{suffix} and {parts[0]}{suffix} or {parts[1]}{suffix} "
                        "cannot be used at the same time"
                    )
        if self.iops_size and not any(self.rates[FIRST_IOPS:]):
            return "iops-size requires an iops limit"
        if not 0 <= self.iops_size <= MAX_VALUE:
            return f"iops-size={shorten(str(self.iops_size))} is not within 0 to {MAX_VALUE}"
        return next((text for n in range(len(NAMES)) if (text := self._problem_of(n))), "")

    def _problem_of(self, which: int) -> str:
        name = NAMES[which]
        rate, peak, seconds = self.rates[which], self.peaks[which], self.seconds[which]
        for value, suffix in ((rate, ""), (peak, "-max")):
            if not 0 <= value <= MAX_VALUE:
                return f"{name}{suffix}={shorten(str(value))} is not within 0 to {MAX_VALUE}"
        if peak and not rate:
            return f"{name}-max requires {name}"
        if peak and peak < rate:
            return f"{name}-max={peak} is lower than {name}={rate}"
        return self._problem_of_length(name, peak, seconds)

    def _problem_of_length(self, name: str, peak: int, seconds: int) -> str:
        if seconds < 1:
            return f"{name}-max-length={shorten(str(seconds))} is not at least 1 second"
        if seconds > 1 and not peak:
            return f"{name}-max-length requires {name}-max"
        if peak and seconds > MAX_VALUE // peak:
            return f"{name}-max-length={shorten(str(seconds))} is too long for {name}-max={peak}"
        return ""
