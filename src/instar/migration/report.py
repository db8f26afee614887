"""What is known about an update after it: versions, phases, the pause, who goes on. It crosses the update itself."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final, Literal

    from instar.cpr.lifecycle import PhaseEvent

    # running: under way. ready: a check found nothing. refused: the guest was not stopped. failed: it was, and the
    # old program goes on.
    Outcome = Literal["running", "ready", "completed", "refused", "failed", "cancelled"]
    Owner = Literal["old", "old-by-guardian", "new"]

MAX_SENTENCES: Final = 100  # notes, complaints: of another program
MAX_SENTENCE: Final = 1000  # characters


class Report:
    """What one migration was; times are host monotonic nanoseconds, -1: did not happen.

    Attributes:
        phases: (name, start, duration) in order; over an update the old program's come first.
        stopped_ns: When the guest stopped.
        over_ns: When its vCPUs ran on in a bridge's helper.
        back_ns: When they stood still there.
        resumed_ns: When it ran again.
        transferred: Bytes written to the main channel.
        outcome: How the update ended.
        check: It was only to be tried.
        new_version: Of the program that took over, or that was tried; "" if it told none.
        program, digest: What was to be executed: path, ``sha256:hex`` ("" if it is not known).
        owner: Which program has the guest now.
        old_pid, new_pid: Process before, and of who goes on now; 0: there was none.
        reason: Why it did not complete, "" if it did.
        predicted_ns: Pause that was predicted.
        parts_ns: What the rehearsal measured for that.
        bias: How pauses were before, in thousandths of that (``instar.migration.prediction``).
        held_ns: How long the guest stood still for copies of its state, before the update stopped it.
        notes, complaints: What the rehearsal said.
        unclaimed: Descriptors of the old program that nobody asked for; closed.
        imported: Modules of ours that the new program had imported when the guest ran again.
        modules, module_bytes: How many these were, and their byte code; -1: not known.
        prepared: It began with what the rehearsal had found out.
    """

    __slots__ = (
        "back_ns", "began_ns", "bias", "check", "complaints", "digest", "ended_ns", "held_ns", "imported", "mode",
        "module_bytes", "modules", "new_pid", "new_version", "notes", "old_pid", "old_version", "outcome", "over_ns",
        "owner", "parts_ns", "phases", "predicted_ns", "prepared", "program", "ram_bytes", "reason", "resumed_ns",
        "setup_ns", "stopped_ns", "transferred", "unclaimed",
    )  # fmt: skip

    def __init__(self, mode: str, old_version: str) -> None:
        self.mode = mode
        self.check = self.prepared = False
        self.outcome: Outcome = "running"
        self.owner: Owner = "old"
        self.old_version = old_version
        self.new_version = self.program = self.digest = self.reason = ""
        self.old_pid = self.new_pid = 0
        self.phases: list[tuple[str, int, int]] = []
        self.notes: list[str] = []
        self.complaints: list[str] = []
        self.unclaimed: list[str] = []
        self.began_ns = self.setup_ns = self.stopped_ns = self.resumed_ns = self.ended_ns = -1
        self.imported: list[str] = []
        self.over_ns = self.back_ns = self.predicted_ns = self.parts_ns = -1
        self.modules = self.module_bytes = -1
        self.bias = 1000
        self.held_ns = 0
        self.transferred = 0
        self.ram_bytes = 0

    def add_phases(self, events: Sequence[PhaseEvent]) -> None:
        """Add what the lifecycle reported."""
        self.phases += [(event.phase, event.start_ns, event.took_ns) for event in events]

    def add_phase(self, name: str, start_ns: int, end_ns: int) -> None:
        """Add one phase of the new program."""
        self.phases.append((name, start_ns, end_ns - start_ns))

    def after_handover(self) -> list[tuple[str, int, int]]:
        """Return the phases of the program that goes on: from ``exec`` on, of a transfer from ``load`` on."""
        names = [name for name, _, _ in self.phases]
        first = "load" if self.mode == "cpr-transfer" else "exec"
        return self.phases[names.index(first) :] if first in names else []

    def end(self, outcome: Outcome, reason: str = "") -> None:
        """Note how it ended, in the program that goes on."""
        self.outcome = outcome
        self.reason = reason

    @property
    def pause_ns(self) -> int:
        """How long the guest's vCPUs stood still, -1 while unknown: twice a little, if there was a bridge."""
        pause = self.away_ns
        return pause - (self.back_ns - self.over_ns) if pause >= 0 and self.bridged else pause

    @property
    def away_ns(self) -> int:
        """From the guest's stop to its resume (to the end, where it resumes elsewhere), -1 while unknown."""
        end = self.ended_ns if self.mode == "normal" else self.resumed_ns
        return end - self.stopped_ns if min(self.stopped_ns, end) >= 0 else -1

    @property
    def bridged(self) -> bool:
        """Whether the vCPUs ran on in a helper while there was no monitor."""
        return min(self.over_ns, self.back_ns) >= 0

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
            if isinstance(value, list):
                rows: list[object] = value  # pyright: ignore[reportUnknownVariableType]
                value = sentences(rows)
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
        if self.mode.startswith("cpr-"):
            shown["x-update"] = self.update_info()
        return shown

    def update_info(self) -> dict[str, object]:
        """Return ``x-update``."""
        shown: dict[str, object] = {
            "status": self.outcome,
            "mode": self.mode,
            "check": self.check,
            "owner": self.owner,
            "old-version": self.old_version,
            "old-pid": self.old_pid,
            "new-pid": self.new_pid,
        }
        for name in ("new_version", "program", "digest", "reason"):
            if text := getattr(self, name):
                shown[name.replace("_", "-")] = text
        if self.pause_ns >= 0:
            shown["pause-us"] = self.pause_ns // 1000
            if self.bridged:
                shown["device-pause-us"] = self.away_ns // 1000
        if self.predicted_ns >= 0:
            shown["predicted-pause-us"] = self.predicted_ns // 1000
        if self.modules >= 0:
            shown["modules"], shown["module-bytes"] = self.modules, self.module_bytes
            shown["prepared"] = self.prepared
        if self.held_ns:
            shown["rehearsal-pause-us"] = self.held_ns // 1000
        shown["phases"] = [{"name": name, "us": took // 1000} for name, _, took in self.phases]
        for name in ("notes", "complaints", "unclaimed"):
            if rows := getattr(self, name):
                shown[name] = list(rows)
        return shown


def sentences(rows: Sequence[object]) -> list[str]:
    """Return what of another program's list is text, within limits."""
    return [row[:MAX_SENTENCE] for row in rows[:MAX_SENTENCES] if isinstance(row, str)]


def ram_info(report: Report) -> dict[str, object]:
    """QEMU's members of ``ram``; what nothing here counts is 0."""
    taken_s = max(1, report.ended_ns - report.began_ns) / 1e9
    names = (
        "remaining", "postcopy-requests", "multifd-bytes", "pages-per-second", "downtime-bytes", "postcopy-bytes",
        "dirty-sync-missed-zero-copy", "precopy-bytes", "duplicate", "dirty-pages-rate", "normal-bytes", "normal",
    )  # fmt: skip
    shown: dict[str, object] = dict.fromkeys(names, 0)
    shown["total"] = report.ram_bytes
    shown["transferred"] = report.transferred
    shown["dirty-sync-count"] = 2
    shown["page-size"] = os.sysconf("SC_PAGESIZE")
    shown["mbps"] = round(report.transferred * 8 / taken_s / 1e6, 2) if report.ended_ns > 0 else 0
    return shown


def _ms(ns: int) -> int:
    return (ns + 500_000) // 1_000_000
