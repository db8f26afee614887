"""What the demo finds out, apart from how it is shown."""

from __future__ import annotations

from typing import NamedTuple

PAUSED = (
    "stop",
    "save",
    "exec",
    "build",
    "load",
    "resume",
)  # phases in which the guest stands still


class Update(NamedTuple):
    """One update, as the new program and the host's process table tell it."""

    number: int
    old_version: str
    new_version: str
    mode: str
    pid_before: int
    pid_after: int
    pause_us: int
    phases: list[tuple[str, int]]  # name, us; in order

    def record(self) -> dict[str, object]:
        """Return it for machines."""
        return {
            "event": "update",
            "number": self.number,
            "mode": self.mode,
            "old-version": self.old_version,
            "new-version": self.new_version,
            "pid-before": self.pid_before,
            "pid-after": self.pid_after,
            "pause-us": self.pause_us,
            "phases": [{"name": name, "us": us} for name, us in self.phases],
        }


class Summary(NamedTuple):
    """What the guest went through."""

    updates: int
    connections: int  # to the monitor, all in all
    ticks: int
    ticks_missing: int
    longest_silence_ms: int
    checksums: int
    checksums_wrong: int
    shell_kept: bool
    complaints: list[str]  # of the guest's kernel
    exit_status: int
    boot_s: float
    total_s: float

    def faults(self) -> list[str]:
        """Return what is not as Instar promises, in sentences."""
        checks = [
            (
                self.ticks_missing,
                f"{self.ticks_missing} numbers of the guest's counter are missing or doubled",
            ),
            (not self.checksums, "the guest read its disk to the end not even once"),
            (
                self.checksums_wrong,
                f"{self.checksums_wrong} of {self.checksums} checksums of the disk are wrong",
            ),
            (not self.shell_kept, "the guest's shell forgot its variable"),
            (self.complaints, "the guest's kernel complained"),
            (self.exit_status, f"instar-system ended with status {self.exit_status}"),
        ]
        return [text for wrong, text in checks if wrong]

    def record(self) -> dict[str, object]:
        """Return it for machines."""
        return {
            "event": "done",
            "ok": not self.faults(),
            "updates": self.updates,
            "monitor-connections": self.connections,
            "counter": self.ticks,
            "counter-missing": self.ticks_missing,
            "counter-longest-silence-ms": self.longest_silence_ms,
            "checksums": self.checksums,
            "checksums-wrong": self.checksums_wrong,
            "shell-kept": self.shell_kept,
            "kernel-complaints": self.complaints,
            "exit-status": self.exit_status,
            "boot-s": round(self.boot_s, 1),
            "total-s": round(self.total_s, 1),
        }
