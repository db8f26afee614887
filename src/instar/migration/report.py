"""What is known about an update after it: versions, phases, the pause. It crosses the update itself."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from instar.cpr.lifecycle import PhaseEvent


class Report:
    """Times of one migration; host monotonic nanoseconds, -1: did not happen.

    Attributes:
        digest: Of the program that was executed, ``sha256:hex``; "" if it is not known.
        phases: (name, start, duration) in order; over an update the old program's come first.
        stopped_ns: When the guest stopped.
        resumed_ns: When it ran again.
        transferred: Bytes written to the main channel.
    """

    __slots__ = (
        "began_ns", "digest", "ended_ns", "mode", "new_version", "old_version", "phases", "ram_bytes", "resumed_ns",
        "setup_ns", "stopped_ns", "transferred",
    )  # fmt: skip

    def __init__(self, mode: str, old_version: str) -> None:
        self.mode = mode
        self.old_version = old_version
        self.new_version = ""
        self.digest = ""
        self.phases: list[tuple[str, int, int]] = []
        self.began_ns = self.setup_ns = self.stopped_ns = self.resumed_ns = self.ended_ns = -1
        self.transferred = 0
        self.ram_bytes = 0

    def add_phases(self, events: Sequence[PhaseEvent]) -> None:
        """Add what the lifecycle reported."""
        self.phases += [(event.phase, event.start_ns, event.took_ns) for event in events]

    def add_phase(self, name: str, start_ns: int, end_ns: int) -> None:
        """Add one phase of the new program."""
        self.phases.append((name, start_ns, end_ns - start_ns))

    @property
    def pause_ns(self) -> int:
        """From the guest's stop to its resume (to the end, where it resumes elsewhere), -1 while unknown."""
        end = self.ended_ns if self.mode == "normal" else self.resumed_ns
        return end - self.stopped_ns if min(self.stopped_ns, end) >= 0 else -1

    def to_record(self) -> dict[str, object]:
        """Return plain values for the new program."""
        record: dict[str, object] = {
            name: getattr(self, name) for name in self.__slots__ if name != "phases"
        }
        record["phases"] = [list(phase) for phase in self.phases]
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> Report:
        """Return the report that the program before wrote; what is not understood keeps its default."""
        report = cls("", "")
        for name in cls.__slots__:
            value = record.get(name)
            if name != "phases" and type(value) is type(getattr(report, name)):
                setattr(report, name, value)
        phases = record.get("phases")
        if isinstance(phases, list):
            items: list[object] = phases  # pyright: ignore[reportUnknownVariableType]
            for item in items:
                match item:
                    case [str() as name, int() as start, int() as took]:
                        report.phases.append((name, start, took))
                    case _:
                        continue
        return report

    def info(self) -> dict[str, object]:
        """Return the members of ``query-migrate`` that this knows, QEMU's names and ours (``x-update``)."""
        shown: dict[str, object] = {}
        if self.setup_ns >= 0:
            shown["setup-time"] = _ms(self.setup_ns - self.began_ns)
        if self.pause_ns >= 0:
            shown["downtime"] = _ms(self.pause_ns)
        if self.ended_ns >= 0:
            shown["total-time"] = _ms(self.ended_ns - self.began_ns)
        if self.mode.startswith("cpr-") and self.new_version and self.pause_ns >= 0:
            shown["x-update"] = {
                "mode": self.mode,
                "old-version": self.old_version,
                "new-version": self.new_version,
                "pause-us": self.pause_ns // 1000,
                "phases": [{"name": name, "us": took // 1000} for name, _, took in self.phases],
                **({"digest": self.digest} if self.digest else {}),
            }
        return shown


def _ms(ns: int) -> int:
    return (ns + 500_000) // 1_000_000
